"""Draws within strata: how many locations each stratum gets, and which ones.

Within a stratum: the generalized random tessellation stratified (GRTS) order of Stevens and Olsen
(2004, Journal of the American Statistical Association 99:262-278) as a master sample. The sphere is
turned at random and cut into quadrants again and again, the four quadrants of each node in random
order: this puts all cells on a line where neighbors in space are mostly neighbors on the line. The
places on the line, turned by a random start, are then visited in reverse hierarchical order (the
van der Corput sequence), so that the first n visits are spread evenly over the line for every n.
Hence a draw of n is spatially balanced, holds every smaller draw, and, because the random start is
uniform over all N places, holds each cell with probability exactly n/N.
"""

import hashlib
import heapq
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from workflow_scripts.core import grid

LEVELS = 24
"""Depth of the quadrants: below one meter on the ground."""
_ORDERS = np.array(list(itertools.permutations(range(4))), np.uint64)
"""The 24 orders of four quadrants."""


def allocate(
    n: int,
    weights: pd.Series,
    sizes: pd.Series,
    *,
    minimum: int = 0,
    maximum: int | None = None,
) -> pd.Series:
    """Share `n` locations among strata by Webster's divisor method.

    Every stratum starts with its minimum; each further location goes to the stratum with the
    largest weight / (locations so far + 1/2) that has room. So a larger `n` never takes a location
    from a stratum, and rounding favors none.

    Parameters
    ----------
    n : locations in all
    weights : index stratum; shares are proportional to them; finite, not negative
    sizes : index stratum; cells in the stratum, which it cannot exceed
    minimum, maximum : locations per stratum; a stratum with fewer cells than `minimum` gives all

    Returns
    -------
    Series of int, indexed and ordered as `weights`

    Raises
    ------
    ValueError
        If `n` lies below the minima or above what the strata can give, or a weight is unusable.
    """
    wrong = weights[~np.isfinite(weights) | (weights < 0)]
    if len(wrong):
        raise ValueError(
            f"weights of strata must be finite and not negative; found {wrong.iloc[:5].to_dict()!r}"
        )
    room = sizes.reindex(weights.index)
    if maximum is not None:
        room = room.clip(upper=maximum)
    counts = room.clip(upper=minimum)
    if n < counts.sum():
        raise ValueError(
            f"locations.n_locations = {n} is below the {counts.sum()} that min_per_stratum = {minimum} "
            f"asks for in {len(weights)} strata. Raise n_locations or lower min_per_stratum."
        )
    if n > room.sum():
        limit = "" if maximum is None else f" at max_per_stratum = {maximum}"
        raise ValueError(
            f"locations.n_locations = {n} is more than the {room.sum()} cells that can be drawn{limit}. "
            "Lower n_locations or spacing_m, or raise max_per_stratum."
        )
    weight, count, free = weights.to_numpy(float), counts.to_numpy(), room.to_numpy()
    queue = [(-weight[i] / (count[i] + 0.5), i) for i in range(len(weight)) if count[i] < free[i]]
    heapq.heapify(queue)
    for _ in range(int(n - count.sum())):
        _, i = queue[0]
        count[i] += 1
        if count[i] < free[i]:
            heapq.heapreplace(queue, (-weight[i] / (count[i] + 0.5), i))
        else:
            heapq.heappop(queue)
    return pd.Series(count, index=weights.index)


def stratum_rng(seed: int, stratum: str) -> np.random.Generator:
    """Give a stratum its own generator, from its name, so that strata do not touch each other."""
    digest = hashlib.sha256(f"{seed}\n{stratum}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def draw_order(lon: np.ndarray, lat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give the order in which the cells of one stratum are drawn.

    Parameters
    ----------
    lon, lat : degrees, shape (N,)
    rng : the stratum's generator

    Returns
    -------
    int array, shape (N,): the first n entries are the draw of n cells, for every n
    """
    n_cells = len(lon)
    line = np.argsort(hierarchical_address(lon, lat, rng), kind="stable")
    return line[(reverse_hierarchical_order(n_cells) + rng.integers(n_cells)) % n_cells]


def hierarchical_address(lon: np.ndarray, lat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each point its place on a randomized quadrant-recursive line over the sphere (uint64).

    Six faces of a randomly turned cube, in random order, each cut into quadrants up to `LEVELS` times
    (equal angles, so that quadrants of a level differ little in area). Addresses tell the order of these
    points, and are not comparable with those of others.
    """
    # no matrix product: its rounding may depend on the number of cores
    xyz = (grid.sphere_xyz(lon, lat)[:, None, :] * _random_rotation(rng)).sum(axis=2)
    every, axis = np.arange(len(xyz)), np.abs(xyz).argmax(axis=1)
    main = xyz[every, axis]
    others = np.array([[1, 2], [2, 0], [0, 1]])[axis]
    position = xyz[every[:, None], others] / np.abs(main)[:, None]
    position = (np.arctan(position) * (4 / np.pi) + 1) / 2
    integer = np.clip((position * 2**LEVELS).astype(np.int64), 0, 2**LEVELS - 1).astype(np.uint64)
    face = (2 * axis + (main < 0)).astype(np.uint64)
    address = rng.permutation(6).astype(np.uint64)[face]
    key = rng.integers(2**63, dtype=np.uint64)
    node = face
    for level in range(LEVELS - 1, -1, -1):
        shift = np.uint64(level)
        bits = (integer >> shift) & np.uint64(1)
        quadrant = 2 * bits[:, 0] + bits[:, 1]
        order = _mix(node * np.uint64(32) + shift, key) % np.uint64(24)
        address = address * np.uint64(4) + _ORDERS[order, quadrant]
        node = node * np.uint64(4) + quadrant
        # once no two points share a quadrant, smaller ones do not change their order
        if level % 4 == 0 and np.unique(address).size == address.size:
            break
    return address


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniformly random rotation of the sphere, from a random unit quaternion."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.sqrt((q**2).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Hash integers with a key (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = (values + key) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def reverse_hierarchical_order(n: int) -> np.ndarray:
    """Order the places 0 to n-1 of a line so that the first visits are spread evenly, however many.

    The k-th visit goes to the place that holds the k-th term of the van der Corput sequence in base
    2; places visited before are skipped.
    """
    n_bits = max(int(n - 1).bit_length(), 1)
    counter = np.arange(1 << n_bits, dtype=np.int64)
    reversed_bits = np.zeros_like(counter)
    for bit in range(n_bits):
        reversed_bits |= ((counter >> bit) & 1) << (n_bits - 1 - bit)
    place, first_visit = np.unique((reversed_bits * n) >> n_bits, return_index=True)
    return place[np.argsort(first_visit)]


def draw(
    frame: pd.DataFrame, counts: pd.Series, *, seed: int, earlier: Sequence[pd.Series] = ()
) -> pd.DataFrame:
    """Draw `counts` cells per stratum.

    Parameters
    ----------
    frame : cells with `lon`, `lat` and `stratum`, sorted by row and column
    counts : index stratum
    seed : config seed; a stratum's draw depends on it, on its name and on its cells only
    earlier : counts of smaller draws that this one continues, in their order

    Returns
    -------
    the drawn rows of `frame`, in its order, with `inclusion_probability` and `round`: how many of the
    earlier draws do not hold the row
    """
    chosen, probability, rounds = [], [], []
    for stratum, rows in frame.groupby("stratum", sort=True).indices.items():
        count = int(counts[stratum])
        order = draw_order(
            frame["lon"].to_numpy()[rows], frame["lat"].to_numpy()[rows], stratum_rng(seed, stratum)
        )
        chosen.append(rows[order[:count]])
        probability.append(np.full(count, count / len(rows)))
        before = np.array([some[stratum] for some in earlier], int)
        rounds.append((np.arange(count)[:, None] >= before).sum(axis=1))
    sorting = np.argsort(np.concatenate(chosen))
    columns = {"inclusion_probability": probability, "round": rounds}
    columns = {name: np.concatenate(values)[sorting] for name, values in columns.items()}
    return frame.iloc[np.concatenate(chosen)[sorting]].assign(**columns).reset_index(drop=True)

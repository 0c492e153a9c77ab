"""Folds: which locations are tested together, so that nothing of them is trained on.

Random folds ask about a new place of the same population, blocked folds about a new region. In
both, locations with the same coordinates stay on one side. Folds depend on the locations, labels,
sizes and seed alone, so both probes and all encoders share them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from workflow_scripts.core import grid

SAME_PLACE_DEG = 1e-5
"""Coordinates that round to the same multiple of this (about 1 m) are one place."""


@dataclass(frozen=True)
class Folds:
    """A division of n locations."""

    method: str
    """``random`` or ``blocked``."""
    fold: np.ndarray
    """(n,) number of the fold each location is tested in, from 0."""
    group: np.ndarray
    """(n,) number of the place or block that must not be divided."""
    place: np.ndarray
    """(n,) number of the place (locations with equal coordinates)."""
    block_km: float | None
    """Side of a block; None for random folds."""

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def train(self, fold: int) -> np.ndarray:
        """Rows that may be learned from when `fold` is tested."""
        return np.flatnonzero(self.fold != fold)

    def test(self, fold: int) -> np.ndarray:
        """Rows tested in `fold`."""
        return np.flatnonzero(self.fold == fold)

    def split_validation(self, fold: int, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Divide a fold's training rows into rows to fit and rows to validate by whole groups.

        Where the training rows are a single block, places are divided instead. Groups are taken
        in random order as long as the validation part stays under 1.5 times its share; if all are
        larger, the smallest is taken.
        """
        rows = self.train(fold)
        group = self.group[rows]
        if np.unique(group).size < 2:
            group = self.place[rows]
        names, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
        if names.size < 2:
            raise ValueError(
                f"{self.method} folds: the training part of fold {fold} is a single place "
                f"({rows.size} locations), so none of it can be held out for validation"
            )
        wanted = share * rows.size
        rng = np.random.default_rng([seed, fold])
        held, total = [], 0
        for i in rng.permutation(names.size):
            if total < wanted and total + sizes[i] <= max(1.5 * wanted, 1):
                held.append(i)
                total += sizes[i]
        if not held:
            held = [int(np.argmin(sizes))]
        is_held = np.isin(index, held)
        return rows[~is_held], rows[is_held]


def make_folds(
    location_id: np.ndarray,
    strata: np.ndarray,
    *,
    lon: np.ndarray,
    lat: np.ndarray,
    n_folds: int,
    block_km: float,
    seed: int,
) -> list[Folds]:
    """Give the random and the blocked folds of a set of locations.

    Parameters
    ----------
    location_id : (n,) unique
    strata : (n,) integer class that folds should hold equal shares of; zeros for none
    lon, lat : degrees
    n_folds : wanted number; there are fewer where there are fewer places or blocks
    block_km : side of a block. Blocks are Major-TOM cells of that spacing: rows of equal height
        whose columns are about as wide
    seed : of every random choice

    Returns
    -------
    list of two Folds, ``random`` then ``blocked``; equal for any order of the same locations

    Raises
    ------
    ValueError
        With fewer than two places or blocks.
    """
    location_id = np.asarray(location_id, object)
    if np.unique(location_id).size != location_id.size:
        raise ValueError("locations to divide into folds are not unique")
    order = np.argsort(location_id, kind="stable")
    lon, lat = np.asarray(lon, float), np.asarray(lat, float)
    steps = np.round(np.stack([lon, lat], axis=1) / SAME_PLACE_DEG).astype(np.int64)
    place = _number(steps[order])
    # The block of a place is that of its first location, so that rounding never divides a place.
    cells = grid.cell_at(lon[order], lat[order], block_km * 1000)
    first = np.unique(place, return_index=True)[1]
    block = _number(cells[first][place].astype(str))
    strata = np.asarray(strata)[order]
    for name, groups in (("place", place), ("block", block)):
        if groups.max(initial=-1) < 1:
            raise ValueError(
                f"{location_id.size} locations lie in {groups.max(initial=-1) + 1} {name}: folds "
                f"need at least two. Add locations or lower block_km = {block_km:g}"
            )
    back = np.argsort(order)
    random = _deal_places(place, strata, n_folds=n_folds, rng=np.random.default_rng(seed))
    blocked = _deal_blocks(block, strata, n_folds=n_folds, rng=np.random.default_rng(seed))
    return [
        Folds("random", random[back], place[back], place[back], None),
        Folds("blocked", blocked[back], block[back], place[back], block_km),
    ]


def _number(keys: np.ndarray) -> np.ndarray:
    """Number the distinct keys (rows of a matrix, or strings) from 0."""
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(len(keys))


def _deal_places(
    place: np.ndarray, strata: np.ndarray, *, n_folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Deal shuffled places, class by class, to the folds in turn.

    A class with fewer places than folds is tested in as many folds as it has places.
    """
    first = np.unique(place, return_index=True)[1]
    shuffled = rng.permutation(first.size)
    shuffled = shuffled[np.argsort(strata[first][shuffled], kind="stable")]
    fold = np.empty(first.size, int)
    fold[shuffled] = np.arange(first.size) % min(n_folds, first.size)
    return fold[place]


def _deal_blocks(
    block: np.ndarray, strata: np.ndarray, *, n_folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Give each block, the largest first, to the fold that has least of its classes so far."""
    classes = _number(strata)
    n_blocks = int(block.max()) + 1
    counts = np.zeros((n_blocks, int(classes.max()) + 1))
    np.add.at(counts, (block, classes), 1)
    shuffled = rng.permutation(n_blocks)
    shuffled = shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]
    n_folds = min(n_folds, n_blocks)
    shares = counts / counts.sum(axis=0)
    held = np.zeros((n_folds, counts.shape[1]))
    sizes = np.zeros(n_folds)
    fold = np.empty(n_blocks, int)
    for i in shuffled:
        cost = np.round(held @ shares[i], 12)
        chosen = np.lexsort((sizes, cost))[0]
        fold[i] = chosen
        held[chosen] += shares[i]
        sizes[chosen] += counts[i].sum()
    return fold[block]


def describe_folds(folds: Folds, *, lon: np.ndarray, lat: np.ndarray) -> dict[str, Any]:
    """Summarize folds: sizes, groups, and how far tested locations are from trained ones.

    Returns
    -------
    dict with `n_folds`, `sizes`, `n_groups`, `block_km` (None for random folds) and
    `train_test_distance_km`: minimum, quartiles and maximum of the great-circle distance from each
    location to the nearest one it is predicted from
    """
    points = grid.sphere_xyz(lon, lat)
    chord = np.empty(len(points))
    for fold in range(folds.n_folds):
        test = folds.test(fold)
        chord[test] = cKDTree(points[folds.train(fold)]).query(points[test])[0]
    distance_km = 2 * grid.MEAN_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1))
    names = ("min", "p25", "median", "p75", "max")
    quantiles = np.quantile(distance_km, (0, 0.25, 0.5, 0.75, 1))
    return {
        "n_folds": folds.n_folds,
        "block_km": folds.block_km,
        "n_groups": int(np.unique(folds.group).size),
        "sizes": np.bincount(folds.fold).tolist(),
        "train_test_distance_km": {
            name: round(float(value), 3) for name, value in zip(names, quantiles, strict=True)
        },
    }

"""Folds: which locations are tested together, so that nothing of them is trained on.

Random folds ask about a new place of the same population, blocked folds about a new region; fixed
ones repeat a published split. In the first two, locations with the same coordinates or of the same
group (a chip, a site) stay on one side. Folds depend on the locations, labels, sizes and seed alone,
so both probes and all encoders share them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from workflow_scripts.core import grid

SAME_PLACE_DEG = 1e-5
"""Coordinates that round to the same multiple of this (about 1 m) are one place."""
TRAIN, UNUSED = -1, -2
"""Numbers of rows that are never tested: learned from in every fold, or in none."""


@dataclass(frozen=True)
class Folds:
    """A division of n locations."""

    method: str
    """``random``, ``blocked`` or ``fixed``."""
    fold: np.ndarray
    """(n,) number of the fold each location is tested in, from 0; `TRAIN` or `UNUSED`."""
    group: np.ndarray
    """(n,) number of the place or block that must not be divided."""
    place: np.ndarray
    """(n,) number of the place (locations with equal coordinates)."""
    block_km: float | None
    """Side of a block; None for other folds."""

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def train(self, fold: int) -> np.ndarray:
        """Rows that may be learned from when `fold` is tested."""
        return np.flatnonzero((self.fold != fold) & (self.fold != UNUSED))

    @property
    def tested(self) -> np.ndarray:
        """Rows tested in any fold."""
        return np.flatnonzero(self.fold >= 0)

    def test(self, fold: int) -> np.ndarray:
        """Rows tested in `fold`."""
        return np.flatnonzero(self.fold == fold)

    def of_rows(self, location: np.ndarray) -> "Folds":
        """Give the division of rows of which each belongs to a location, by the locations' numbers (rows,)."""
        parts = {name: getattr(self, name)[location] for name in ("fold", "group", "place")}
        return replace(self, **parts)

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
    methods: Sequence[str] = ("random", "blocked"),
    group: np.ndarray | None = None,
    split: np.ndarray | None = None,
    train_share: float = 1.0,
) -> list[Folds]:
    """Give the divisions of a set of locations into folds.

    Parameters
    ----------
    location_id : (n,) unique
    strata : (n,) integer class that folds should hold equal shares of; zeros for none
    lon, lat : degrees; NaN where a place is not published, which only its group keeps together
    n_folds : wanted number; there are fewer where there are fewer places or blocks
    block_km : side of a block. Blocks are Major-TOM cells of that spacing: rows of equal height
        whose columns are about as wide
    seed : of every random choice
    methods : which divisions, in this order
    group : (n,) names of what must not be divided beside places; "" for none
    split : (n,) published part of each location; ``fixed`` tests "test" and learns from "train"
    train_share : of the published training part that each fixed draw learns from

    Returns
    -------
    list of Folds: one for ``random`` and for ``blocked``, `n_folds` draws for ``fixed``; equal for any
    order of the same locations

    Raises
    ------
    ValueError
        With fewer than two places or blocks, without a published split, or if blocks have no coordinates.
    """
    location_id = np.asarray(location_id, object)
    if np.unique(location_id).size != location_id.size:
        raise ValueError("locations to divide into folds are not unique")
    order = np.argsort(location_id, kind="stable")
    back = np.argsort(order)
    lon, lat = np.asarray(lon, float)[order], np.asarray(lat, float)[order]
    names = np.full(len(lon), "", object) if group is None else np.asarray(group, object)[order]
    place = _places(lon, lat, names)
    strata = np.asarray(strata)[order]
    result: list[Folds] = []
    for method in methods:
        rng = np.random.default_rng(seed)
        if method == "random":
            _check_number(place, "place", block_km)
            fold = _deal_places(place, strata, n_folds=n_folds, rng=rng)
            result.append(Folds(method, fold[back], place[back], place[back], None))
        elif method == "blocked":
            block = _blocks(lon, lat, place, block_km)
            _check_number(block, "block", block_km)
            fold = _deal_blocks(block, strata, n_folds=n_folds, rng=rng)
            result.append(Folds(method, fold[back], block[back], place[back], block_km))
        else:
            parts = None if split is None else np.asarray(split, object)[order]
            for fold in _draw_fixed(parts, place, n_draws=n_folds, share=train_share, rng=rng):
                result.append(Folds(method, fold[back], place[back], place[back], None))
    return result


def _places(lon: np.ndarray, lat: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Number what must stay together: rows joined by coordinates, by group, or by a chain of both."""
    has_place = np.isfinite(lon) & np.isfinite(lat)
    steps = np.round(np.nan_to_num(np.stack([lon, lat], axis=1)) / SAME_PLACE_DEG).astype(np.int64)
    alone = np.arange(len(lon))
    place = np.where(has_place, _number(steps), len(lon) + alone)
    named = group != ""
    other = np.where(named, _number(group.astype(str)), len(lon) + alone)
    n = 2 * len(lon)
    joined = coo_array((np.ones(len(lon)), (place, n + other)), shape=(2 * n, 2 * n))
    return _number(connected_components(joined, directed=False)[1][place])


def _blocks(lon: np.ndarray, lat: np.ndarray, place: np.ndarray, block_km: float) -> np.ndarray:
    """Number the block of each row: that of its place's first, so that rounding never divides a place."""
    if not np.isfinite(lon + lat).all():
        raise ValueError(
            f"blocked folds need coordinates, which {np.sum(~np.isfinite(lon + lat))} of {len(lon)} locations "
            "have not: write `divisions: [fixed]` or [random] for this task"
        )
    cells = grid.cell_at(lon, lat, block_km * 1000)
    first = np.unique(place, return_index=True)[1]
    return _number(cells[first][place].astype(str))


def _check_number(groups: np.ndarray, name: str, block_km: float) -> None:
    if groups.max(initial=-1) < 1:
        raise ValueError(
            f"{groups.size} locations lie in {groups.max(initial=-1) + 1} {name}: folds "
            f"need at least two. Add locations or lower block_km = {block_km:g}"
        )


def _draw_fixed(
    split: np.ndarray | None, place: np.ndarray, *, n_draws: int, share: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Repeat the published split, each time with a random share of its training places."""
    parts = set() if split is None else set(split.tolist())
    if not {"train", "test"} <= parts:
        raise ValueError(
            f"fixed folds need a label column `split` with 'train' and 'test'; found {sorted(parts)[:5]}"
        )
    is_train = split == "train"
    places = np.unique(place[is_train])
    for _ in range(n_draws):
        drawn = rng.permutation(places)[: max(1, round(share * places.size))]
        learned = is_train & np.isin(place, drawn)
        yield np.where(split == "test", 0, np.where(learned, TRAIN, UNUSED))


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
    tested location to the nearest one it is predicted from; NaN where a coordinate is missing
    """
    quantiles = np.full(5, np.nan)
    if np.isfinite(lon + lat).all():
        points = grid.sphere_xyz(lon, lat)
        chord = np.full(len(points), np.nan)
        for fold in range(folds.n_folds):
            test = folds.test(fold)
            chord[test] = cKDTree(points[folds.train(fold)]).query(points[test])[0]
        distance_km = 2 * grid.MEAN_RADIUS_KM * np.arcsin(np.clip(chord[folds.tested] / 2, 0, 1))
        quantiles = np.quantile(distance_km, (0, 0.25, 0.5, 0.75, 1))
    names = ("min", "p25", "median", "p75", "max")
    return {
        "n_folds": folds.n_folds,
        "block_km": folds.block_km,
        "n_groups": int(np.unique(folds.group).size),
        "sizes": np.bincount(folds.fold[folds.tested]).tolist(),
        "train_test_distance_km": {
            name: round(float(value), 3) for name, value in zip(names, quantiles, strict=True)
        },
    }

"""Folds: nothing divided that must stay together, order and input do not matter, distances."""

import numpy as np
import pytest

from pretrain.downstream.folds import TRAIN, UNUSED, Folds, describe_folds, make_folds
from workflow_scripts.core import grid


def places(n: int, *, seed: int = 0, n_copies: int = 0) -> tuple[np.ndarray, ...]:
    """Ids, lon, lat of points around 10 E 45 N (some 150 km across), some of them repeated."""
    rng = np.random.default_rng(seed)
    lon, lat = 9 + 2 * rng.random(n), 44.3 + 1.4 * rng.random(n)
    copied = rng.integers(0, n, n_copies)
    lon, lat = np.append(lon, lon[copied]), np.append(lat, lat[copied])
    ids = np.array([f"p{i:05d}" for i in rng.permutation(len(lon))], object)
    return ids, lon, lat


def both(ids: np.ndarray, lon: np.ndarray, lat: np.ndarray, **options: object) -> list[Folds]:
    """Folds with the defaults of these tests."""
    strata = options.pop("strata", np.zeros(len(ids), int))
    settings = {"n_folds": 5, "block_km": 20.0, "seed": 1} | options
    return make_folds(ids, strata, lon=lon, lat=lat, **settings)


def test_nothing_leaks() -> None:
    """Same coordinates are together in both, blocks in the blocked folds."""
    ids, lon, lat = places(300, n_copies=60)
    random, blocked = both(ids, lon, lat)
    for folds in (random, blocked):
        for fold in range(folds.n_folds):
            train, test = folds.train(fold), folds.test(fold)
            assert set(train) | set(test) == set(range(360))
            assert not set(zip(lon[train], lat[train])) & set(zip(lon[test], lat[test]))
    cells = grid.cell_at(lon, lat, 20_000)
    for fold in range(blocked.n_folds):
        assert not set(cells[blocked.train(fold)]) & set(cells[blocked.test(fold)])
    assert np.unique(cells).size == np.unique(blocked.group).size > 30


def test_rounding_does_not_divide_a_place() -> None:
    """Two spellings of one coordinate on either side of a block's edge stay together."""
    ids, lon, lat = places(100)
    edge = grid.cells(20_000, bounds=(9, 44, 11, 46)).iloc[40]
    lon[:2], lat[:2] = [edge["west"] - 1e-9, edge["west"] + 1e-9], edge["lat"]
    for folds in both(ids, lon, lat):
        assert folds.fold[0] == folds.fold[1]


def test_folds_belong_to_locations_not_to_rows() -> None:
    """Another order of the rows gives each location the same fold; another seed does not."""
    ids, lon, lat = places(200, n_copies=10)
    strata = np.arange(210) % 3
    order = np.random.default_rng(5).permutation(210)
    first = both(ids, lon, lat, strata=strata)
    again = both(ids[order], lon[order], lat[order], strata=strata[order])
    other = both(ids, lon, lat, strata=strata, seed=2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.fold[order], b.fold)
        assert (a.fold != c.fold).any()


def test_random_folds_are_stratified() -> None:
    """Each class is spread within one member per fold, and so are the sizes."""
    ids, lon, lat = places(203)
    strata = np.repeat([0, 1, 2, 3], [100, 60, 40, 3])
    random, _ = both(ids, lon, lat, strata=strata)
    for stratum in range(4):
        counts = np.bincount(random.fold[strata == stratum], minlength=5)
        assert np.ptp(counts) <= 1
    assert np.ptp(np.bincount(random.fold)) <= 1
    # a class of 3 members is tested in 3 of the 5 folds
    assert (np.bincount(random.fold[strata == 3], minlength=5) == 1).sum() == 3


def test_blocked_folds_are_balanced() -> None:
    """Blocks of a class go to the folds that have least of it."""
    ids, lon, lat = places(600)
    strata = (lon > 10).astype(int)
    _, blocked = both(ids, lon, lat, strata=strata)
    for stratum in (0, 1):
        counts = np.bincount(blocked.fold[strata == stratum], minlength=5)
        assert counts.min() > 0.6 * counts.max()


def test_fewer_blocks_than_folds() -> None:
    """There are as many folds as blocks, none empty; a single block is an error that says so."""
    ids, lon, lat = places(80)
    _, blocked = both(ids, lon, lat, block_km=100.0, n_folds=50)
    assert blocked.n_folds == np.unique(blocked.group).size < 50
    assert np.bincount(blocked.fold).min() > 0
    with pytest.raises(ValueError, match="lower block_km = 2000"):
        both(ids, lon, lat, block_km=2000.0)
    with pytest.raises(ValueError, match="in 1 place"):
        both(ids, np.full(80, 9.0), np.full(80, 45.0))


def test_repeated_ids_are_refused() -> None:
    """A location is in one fold."""
    with pytest.raises(ValueError, match="not unique"):
        both(np.array(["a", "a"], object), np.array([0.0, 1]), np.array([0.0, 1]))


def test_validation_rows_keep_groups_whole() -> None:
    """Validation is about a tenth, disjoint from what is fitted by place and by block."""
    ids, lon, lat = places(500, n_copies=50)
    for folds in both(ids, lon, lat):
        for fold in range(folds.n_folds):
            fit, held = folds.split_validation(fold, share=0.1, seed=3)
            assert sorted([*fit, *held]) == folds.train(fold).tolist()
            assert not set(folds.group[fit]) & set(folds.group[held])
            assert 0.05 <= held.size / (fit.size + held.size) <= 0.16


def test_validation_with_few_blocks() -> None:
    """With two blocks, the training part is one: places are divided instead."""
    lon = np.append(9 + 0.001 * np.arange(30), 12 + 0.001 * np.arange(30))
    ids = np.array([f"p{i:02d}" for i in range(60)], object)
    blocked = both(ids, lon, np.full(60, 44.91), block_km=100.0)[1]
    fit, held = blocked.split_validation(0, share=0.1, seed=0)
    assert (fit.size, held.size) == (27, 3)


def test_train_test_distance() -> None:
    """Distances are to the nearest location of another fold, along the great circle."""
    ids, lon, lat = places(90)
    for folds in both(ids, lon, lat):
        nearest = [
            min(grid.great_circle_km(lon[i], lat[i], lon[j], lat[j]) for j in folds.train(folds.fold[i]))
            for i in range(90)
        ]
        summary = describe_folds(folds, lon=lon, lat=lat)
        distances = summary["train_test_distance_km"]
        # rounded to a meter
        assert distances["min"] == pytest.approx(min(nearest), abs=1e-3)
        assert distances["median"] == pytest.approx(np.median(nearest), abs=1e-3)
        assert distances["max"] == pytest.approx(max(nearest), abs=1e-3)
        assert sum(summary["sizes"]) == 90


def test_groups_stay_together_and_join_places() -> None:
    """Images of one chip, and places joined by a chain of chips, are never divided; "" joins nothing."""
    ids, lon, lat = places(200)
    group = np.array([f"chip{i // 4}" for i in range(200)], object)
    group[100:] = ""
    lon[3], lat[3] = lon[4], lat[4]  # chip 0 and chip 1 share a place
    for folds in both(ids, lon, lat, group=group):
        for first in range(0, 100, 4):
            assert np.unique(folds.fold[first : first + 4]).size == 1
        assert np.unique(folds.fold[:8]).size == 1
        assert np.unique(folds.place).size == 24 + 100


def test_unknown_places_are_divided_by_group_alone() -> None:
    """Chips without coordinates can be divided at random, not by blocks."""
    ids, *_ = places(40)
    nowhere = np.full(40, np.nan)
    group = np.array([f"chip{i // 2}" for i in range(40)], object)
    (random,) = both(ids, nowhere, nowhere, group=group, methods=["random"])
    assert (random.fold[::2] == random.fold[1::2]).all() and random.n_folds == 5
    assert np.isnan(describe_folds(random, lon=nowhere, lat=nowhere)["train_test_distance_km"]["min"])
    with pytest.raises(ValueError, match="blocked folds need coordinates, which 40 of 40"):
        both(ids, nowhere, nowhere)


def test_fixed_draws_repeat_the_published_split() -> None:
    """Every draw tests the test part and learns from its own share of the training part alone."""
    ids, lon, lat = places(300)
    split = np.array((["train"] * 20 + ["validation"] * 5 + ["test"] * 5) * 10, object)
    draws = both(ids, lon, lat, split=split, methods=["fixed"], train_share=0.25)
    assert len(draws) == 5
    for folds in draws:
        assert set(split[folds.test(0)]) == {"test"} and len(folds.test(0)) == 50
        assert set(split[folds.train(0)]) == {"train"} and len(folds.train(0)) == 50
        assert set(split[folds.fold == UNUSED]) == {"train", "validation"}
        assert folds.n_folds == 1 and (folds.fold[folds.train(0)] == TRAIN).all()
        fit, held = folds.split_validation(0, share=0.1, seed=0)
        assert set(fit) | set(held) == set(folds.train(0)) and len(held) == 5
    assert len({tuple(folds.train(0)) for folds in draws}) == 5
    assert describe_folds(draws[0], lon=lon, lat=lat)["sizes"] == [50]
    with pytest.raises(ValueError, match="need a label column `split`"):
        both(ids, lon, lat, methods=["fixed"])

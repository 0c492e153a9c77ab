"""Draws within strata: probabilities, nesting, balance over space, allocation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.stats import norm

from workflow_scripts.core import grid
from workflow_scripts.sampling.draw import (
    allocate,
    draw,
    draw_order,
    hierarchical_address,
    reverse_hierarchical_order,
    stratum_rng,
)


def irregular_frame(n, rng):
    """Points in three clumps of different density, one across the antimeridian."""
    clump = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    lon = np.array([10.0, 179.0, 60.0])[clump] + rng.normal(0, np.array([0.3, 3.0, 8.0])[clump])
    lat = np.array([0.0, -20.0, 60.0])[clump] + rng.normal(0, np.array([0.3, 3.0, 5.0])[clump])
    return (lon + 180) % 360 - 180, lat


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700))
def test_reverse_hierarchical_order_visits_every_place_once_and_evenly(n):
    order = reverse_hierarchical_order(n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    for first in range(1, n, max(n // 7, 1)):
        gaps = np.diff(np.sort(np.append(order[:first], order[:first].min() + n)))
        assert gaps.max() <= 2 * n / first + 1


@pytest.mark.parametrize(
    ("n_cells", "n_draws"),
    [(7, 1500), (23, 2000), *(pytest.param(n, 10_000, marks=pytest.mark.slow) for n in (23, 100))],
)
def test_every_cell_is_drawn_with_the_stated_probability(n_cells, n_draws):
    """Repeated draws of every size from an irregular frame: frequencies against n/N.

    The bound is the one that fair draws exceed somewhere once in a thousand tests (Bonferroni).
    """
    lon, lat = irregular_frame(n_cells, np.random.default_rng(1))
    at = np.zeros((n_cells, n_cells))  # cell × place in the order
    for seed in range(n_draws):
        at[draw_order(lon, lat, stratum_rng(seed, "a")), np.arange(n_cells)] += 1
    hits = at.cumsum(axis=1)[:, :-1]
    probability = np.arange(1, n_cells) / n_cells
    error = np.sqrt(probability * (1 - probability) / n_draws)
    assert (hits.sum(axis=0) == np.arange(1, n_cells) * n_draws).all()
    bound = norm.isf(0.001 / 2 / hits.size)
    assert (np.abs(hits / n_draws - probability) < bound * error).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.data())
def test_a_larger_draw_holds_the_smaller_one(n_cells, data):
    small = data.draw(st.integers(1, n_cells - 1))
    large = data.draw(st.integers(small, n_cells))
    lon, lat = irregular_frame(n_cells, np.random.default_rng(n_cells))
    frame = pd.DataFrame({"lon": lon, "lat": lat, "stratum": "a", "cell": np.arange(n_cells)})
    few = draw(frame, pd.Series({"a": small}), seed=4)
    many = draw(frame, pd.Series({"a": large}), seed=4)
    assert len(few) == small and len(many) == large
    assert set(few["cell"]) <= set(many["cell"])
    assert (few["inclusion_probability"] == small / n_cells).all()


def test_strata_do_not_touch_each_other():
    lon, lat = irregular_frame(120, np.random.default_rng(2))
    frame = pd.DataFrame({"lon": lon, "lat": lat, "cell": np.arange(120)})
    frame["stratum"] = np.repeat(["a", "b", "c"], 40)
    both = draw(frame, pd.Series({"a": 9, "b": 5, "c": 3}), seed=4)
    only = draw(frame[frame["stratum"] == "b"].reset_index(drop=True), pd.Series({"b": 5}), seed=4)
    np.testing.assert_array_equal(both.loc[both["stratum"] == "b", "cell"], only["cell"])
    other = draw(frame, pd.Series({"a": 9, "b": 5, "c": 3}), seed=5)
    assert set(other["cell"]) != set(both["cell"])


def test_the_line_keeps_neighbors_together():
    """Places next to each other on the line are far closer in space than random pairs."""
    cells = grid.cells(100_000, bounds=(-20, -35, 50, 35))
    address = hierarchical_address(cells["lon"], cells["lat"], np.random.default_rng(0))
    assert np.unique(address).size == len(cells)
    xyz = grid.sphere_xyz(cells["lon"], cells["lat"])[np.argsort(address)]
    step = np.linalg.norm(np.diff(xyz, axis=0), axis=1) * grid.MEAN_RADIUS_KM
    assert np.median(step) < 150


@pytest.mark.parametrize("n", [16, 50, 117, 300])
def test_draws_are_better_spread_than_random_ones(n):
    """Spread of the Voronoi shares (Stevens and Olsen 2004): 1 for simple random sampling."""
    cells = grid.cells(100_000, bounds=(-15, -30, 40, 30))
    xyz = grid.sphere_xyz(cells["lon"], cells["lat"])

    def variance(rows):
        _, owner = cKDTree(xyz[rows]).query(xyz)
        return np.var(np.bincount(owner, minlength=n) * n / len(cells))

    rng = np.random.default_rng(0)
    ours = [
        variance(draw_order(cells["lon"], cells["lat"], stratum_rng(seed, "a"))[:n]) for seed in range(12)
    ]
    plain = [variance(rng.choice(len(cells), n, replace=False)) for _ in range(12)]
    assert np.mean(ours) < 0.6 * np.mean(plain)


def test_a_mean_over_land_is_estimated_without_bias():
    """Horvitz-Thompson over 3 strata with unequal allocation, 500 draws, 4 standard errors.

    The variance formula for simple random draws in strata, as docs/sampling.md gives it, is on the safe side.
    """
    cells = grid.cells(200_000, bounds=(-15, -30, 40, 30))
    cells["stratum"] = np.where(cells["lat"] > 20, "dry", np.where(cells["lon"] > 10, "east", "west"))
    value = np.sin(cells["lon"] / 5) + cells["lat"] / 10 + (cells["stratum"] == "dry") * 3
    cells = cells[["lon", "lat", "stratum"]].assign(value=value)
    counts = pd.Series({"dry": 20, "east": 9, "west": 4})
    share = cells["stratum"].value_counts(normalize=True)
    means, variances = [], []
    for seed in range(500):
        drawn = draw(cells, counts, seed=seed)
        means.append((drawn["value"] / drawn["inclusion_probability"]).sum() / len(cells))
        if seed < 100:
            within = drawn.groupby("stratum")["value"].var()
            variances.append((share**2 * (1 - counts / (share * len(cells))) * within / counts).sum())
    assert np.mean(means) == pytest.approx(value.mean(), abs=4 * np.std(means) / np.sqrt(500))
    assert np.mean(variances) > 1.5 * np.var(means)


def test_allocate_follows_the_weights_within_limits():
    weights = pd.Series({"a": 100.0, "b": 10.0, "c": 1.0, "d": 0.0})
    sizes = pd.Series({"a": 1000, "b": 1000, "c": 1000, "d": 5})
    assert allocate(111, weights, sizes).tolist() == [100, 10, 1, 0]
    assert allocate(20, weights, sizes, minimum=2).tolist() == [14, 2, 2, 2]
    assert allocate(20, weights, sizes, minimum=2, maximum=8).tolist() == [8, 8, 2, 2]
    assert allocate(2010, weights, sizes, minimum=1).tolist() == [1000, 917, 92, 1]
    assert allocate(20, weights, pd.Series({"a": 1, "b": 2, "c": 100, "d": 1}), minimum=3).tolist() == [
        1, 2, 16, 1,
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 60)), min_size=1, max_size=12), st.data())
def test_a_larger_budget_takes_nothing_from_a_stratum(strata, data):
    weights = pd.Series([weight for weight, _ in strata])
    sizes = pd.Series([size for _, size in strata])
    minimum = data.draw(st.integers(0, 5))
    low = int(sizes.clip(upper=minimum).sum())
    n = data.draw(st.integers(low, int(sizes.sum()) - 1) if low < sizes.sum() else st.just(low))
    before = allocate(n, weights, sizes, minimum=minimum)
    assert before.sum() == n
    assert (before <= sizes).all() and (before >= sizes.clip(upper=minimum)).all()
    if n < sizes.sum():
        after = allocate(n + 1, weights, sizes, minimum=minimum)
        assert (after - before >= 0).all()


def test_allocate_says_what_cannot_be_given():
    weights, sizes = pd.Series({"a": 1.0, "b": 2.0}), pd.Series({"a": 3, "b": 4})
    with pytest.raises(ValueError, match="8 is more than the 7 cells that can be drawn"):
        allocate(8, weights, sizes)
    with pytest.raises(ValueError, match=r"more than the 4 cells .* max_per_stratum = 2"):
        allocate(5, weights, sizes, maximum=2)
    with pytest.raises(ValueError, match=r"= 1 is below the 4 .* min_per_stratum = 2 .* 2 strata"):
        allocate(1, weights, sizes, minimum=2)
    with pytest.raises(ValueError, match=r"finite and not negative; found \{'b': nan\}"):
        allocate(2, pd.Series({"a": 1.0, "b": np.nan}), sizes)

"""Random numbers, weighted draws and seasons are pure functions of seed, epoch and slot."""

import numpy as np
import pandas as pd
import pytest

from pretrain.randomness import philox, uniforms
from pretrain.recipes import resolve, total_steps
from pretrain.sampler import draw_locations, draw_seasons, match_weights, rank_slots
from pretrain.samples import complete_locations, select_samples, subset_of


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0, 0, 0, 0], (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, (2**32 - 1, 2**32 - 1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, expected):
    words = philox(np.array(counter), key)
    assert " ".join(f"{word:08x}" for word in words) == expected


def test_uniforms_depend_on_their_own_slot_only():
    whole = uniforms(7, epoch=3, stream=1, slots=np.arange(100), n=5)
    part = uniforms(7, epoch=3, stream=1, slots=np.array([41, 7]), n=5)
    assert np.array_equal(part, whole[[41, 7]])
    assert np.array_equal(uniforms(7, epoch=3, stream=1, slots=np.arange(100), n=3), whole[:, :3])
    assert whole.min() >= 0 and whole.max() < 1
    for other in ({"epoch": 4, "stream": 1}, {"epoch": 3, "stream": 2}):
        assert not np.array_equal(uniforms(7, slots=np.arange(100), n=5, **other), whole)
    assert not np.array_equal(uniforms(7 + 2**32, epoch=3, stream=1, slots=np.arange(100), n=5), whole)


def test_draws_follow_the_weights():
    weights = np.array([1.0, 0.0, 3.0, 0.25, 0.0])
    drawn = draw_locations(weights, seed=1, epoch=0, slots=np.arange(40_000))
    share = np.bincount(drawn, minlength=5) / 40_000
    # four standard deviations of a share drawn 40,000 times are at most 0.01
    assert share == pytest.approx(weights / weights.sum(), abs=0.01)
    assert share[1] == 0 and share[4] == 0


def test_draws_do_not_depend_on_the_number_of_ranks():
    weights = np.linspace(1, 2, 50)
    for parts in (1, 2):
        dealt = [rank_slots(3, batch_size=8, rank=r, n_ranks=2, n_parts=parts) for r in range(2)]
        assert sorted(np.concatenate(dealt)) == list(range(24, 32))
        assert np.concatenate([r.reshape(parts, -1) for r in dealt], axis=1).ravel().tolist() == list(
            range(24, 32)
        )
    one = draw_locations(weights, seed=2, epoch=5, slots=rank_slots(3, batch_size=8, rank=0, n_ranks=1))
    two = [
        draw_locations(weights, seed=2, epoch=5, slots=rank_slots(3, batch_size=8, rank=r, n_ranks=2))
        for r in range(2)
    ]
    assert np.array_equal(np.concatenate(two), one)


def test_seasons_are_distinct_and_uniform():
    available = np.tile([True, True, False, True], (6000, 1))
    order = draw_seasons(available, 3, seed=0, epoch=0, slots=np.arange(6000))
    assert (np.sort(order, axis=1) == [0, 1, 3]).all()
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts == pytest.approx(np.full(6, 1000), abs=120)  # four standard deviations


def test_two_seasons_repeat_the_second_drawn():
    available = np.tile([False, True, False, True], (50, 1))
    order = draw_seasons(available, 3, seed=0, epoch=0, slots=np.arange(50))
    assert (np.sort(order[:, :2], axis=1) == [1, 3]).all()
    assert np.array_equal(order[:, 1], order[:, 2])
    one = draw_seasons(available, 3, seed=0, epoch=0, slots=np.arange(50), max_seasons=1)
    assert np.array_equal(one, order[:, [0, 0, 0]])


def test_weights_are_joined_by_id_and_must_cover_the_locations():
    weights = pd.DataFrame({"location_id": ["c", "a", "b", "x"], "weight": [3.0, 1.0, 2.0, 9.0]})
    assert match_weights(["a", "b", "c"], weights).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"cover 1 of 3 .* without a weight: 'd', 'e'"):
        match_weights(["a", "d", "e"], weights)
    with pytest.raises(ValueError, match="'b' has an impossible weight"):
        match_weights(["a", "b"], weights.assign(weight=[3, 1, -1, 9]))
    with pytest.raises(ValueError, match="all training locations have weight 0"):
        match_weights(["a", "b"], weights.assign(weight=0.0))
    with pytest.raises(ValueError, match="'a' more than once"):
        match_weights(["a"], pd.concat([weights, weights.iloc[[1]]]))


def test_models_to_compare_share_their_places() -> None:
    """Complete in both sets; the same draw whatever the order of rows; too few is an error."""
    seasons = ["a", "b"]
    first = pd.DataFrame(
        {"location_id": np.repeat(list("wxyz"), 2), "season": seasons * 4, "status": ["ok"] * 7 + ["missing"]}
    )
    second = first.assign(status=["ok", "missing"] + ["ok"] * 6)
    assert complete_locations([first]) == {"w", "x", "y"}
    assert complete_locations([first, second]) == {"x", "y"}


def test_designs_are_compared_over_equal_places_and_steps() -> None:
    """Exactly so many are trained on whatever is missing where; the same whatever the seed and the order of rows."""
    rng = np.random.default_rng(0)
    ids = [f"p{i:02d}" for i in range(40)]
    weights = pd.DataFrame({"location_id": ids, "weight": 1.0})
    options = resolve({"objective": "seco", "seed": 1, "batch_size": 4, "queue_size": 8, "epochs": 3})
    steps = set()
    for n_gaps in (0, 17, 30):
        patches = pd.DataFrame({"location_id": np.repeat(ids, 2), "location": np.arange(80) // 2})
        patches = patches.assign(season=["a", "b"] * 40, status="ok", lon=1.0, lat=2.0)
        patches["datetime"] = pd.Timestamp("2020-06-01")
        patches.loc[2 * rng.permutation(40)[:n_gaps], "status"] = "missing"
        usable = select_samples(patches, weights, seasons=["a", "b"])
        chosen = subset_of(usable, 10)
        assert len(chosen) == 10 and chosen.available.all()
        again = select_samples(patches.sample(frac=1, random_state=1), weights, seasons=["a", "b"])
        assert subset_of(again, 10).location_id.tolist() == chosen.location_id.tolist()
        steps.add(total_steps(options, len(chosen)))
    assert steps == {6}
    with pytest.raises(ValueError, match="n_locations = 11: only 10 locations have the patches"):
        subset_of(usable, 11)

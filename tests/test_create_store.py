"""The stage that creates the store: order of labels, growth, refusals."""

import numpy as np
import pytest
from made_scenes import CENTER, World, make_item

from workflow_scripts.core import store
from workflow_scripts.create_store import season_labels


def test_labels_are_in_the_order_of_config():
    assert season_labels(["spring", "summer", "autumn"], ["autumn", "spring"]) == ["spring", "autumn"]
    assert season_labels([], ["b", "a"]) == ["a", "b"]
    with pytest.raises(ValueError, match="no season"):
        season_labels(["spring"], [])


def test_store_grows_and_refuses_another_layout(tmp_path):
    world = World(tmp_path, [make_item("A", "2021-07-01")])
    world.create()
    assert store.layout(world.store)["seasons"] == ["summer", "winter"]
    world.set_locations((CENTER, CENTER, CENTER))
    world.create()
    assert store.layout(world.store)["n_locations"] == 3
    with pytest.raises(ValueError, match="size_m: store has 640, asked for 1280"):
        world.create(size_m=1280)
    world.set_locations((CENTER,) * 3, {"summer": (152, 244), "dry": (1, 60)})
    with pytest.raises(ValueError, match="seasons: store has"):
        world.create()
    assert np.isnan(store.open_store(world.store)["origin_x"].values).all()

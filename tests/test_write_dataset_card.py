import json
import re

import pandas as pd
import pystac
import pytest
import xarray as xr
import yaml

from tests import fabricate
from workflow_scripts import summarize_bands, weigh_locations, write_dataset_card

SOURCE = {"name": "Made world", "license": "MIT", "url": "https://example.org/made"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    files = fabricate.write_dataset(folder, n=6)
    options = fabricate.settings(notice="Says nothing about the Earth.", sources=[SOURCE])
    outputs = {"weights": folder / "weights.parquet", "shares": folder / "weights.json"}
    weigh_locations.main(
        fabricate.job(inputs=files, outputs=outputs, params={"settings": options["weights"]})
    )
    summarize_bands.main(fabricate.job(inputs=files, outputs={"bands": folder / "bands.json"}, params={}))
    inputs = files | {"bands": str(folder / "bands.json"), "shares": str(folder / "weights.json")}
    outputs = {"card": folder / "README.md", "collection": folder / "collection.json"}
    write_dataset_card.main(
        fabricate.job(inputs=inputs, outputs=outputs, params={"settings": options}, dataset="made")
    )
    return folder


def test_card_says_what_is_there_and_what_is_missing(made):
    card = (made / "README.md").read_text()
    _, block, text = card.split("---\n", 2)
    assert text.startswith("# made\n")
    known = yaml.safe_load(block)
    assert known["license"] == "mit" and known["size_categories"] == ["n<1K"]
    assert known["configs"][0]["data_files"] == "patches.parquet"
    assert "Says nothing about the Earth." in card
    assert "20 of 24 patches are stored, 5 locations have two seasons or more" in card
    assert "| Season | `stored` | `cloudy` | `no_candidate` |" in card
    assert "| winter | 4 | 1 | 1 |" in card
    assert "[Made world](https://example.org/made): MIT." in card
    assert "spacing_m: 700" in card
    assert "`dn10` | location 6, season 4, band10 4, y10 64, x10 64 | uint16" in card


def test_code_in_the_card_runs(made, monkeypatch):
    monkeypatch.chdir(made)
    code = re.search(r"```python\n(.*?)```", (made / "README.md").read_text(), flags=re.S)[1]
    names = {}
    exec(code, names)
    assert isinstance(names["reflectance"], xr.DataArray)
    assert 0 < float(names["reflectance"].mean()) < 1
    assert len(names["index"]) == 24


def test_collection_is_stac_and_points_to_store_and_index(made):
    collection = pystac.Collection.from_dict(json.loads((made / "collection.json").read_text()))
    assert set(collection.assets) == {"patches", "index"}
    west, south, east, north = collection.extent.spatial.bboxes[0]
    assert -180 <= west < east <= 180
    assert -34 < south < north < 48
    assert collection.extent.temporal.intervals[0][0].year == 2021


def test_undeclared_sources_are_said_to_be():
    assert "None declared" in write_dataset_card.source_lines([])[0]


def test_dataset_without_any_patch_still_gets_a_card(made):
    patches = pd.read_parquet(made / "patches.parquet", columns=write_dataset_card.COLUMNS)
    nothing = patches.assign(status="missing", reason="no_candidate", datetime=pd.NaT, is_complete=False)
    facts = write_dataset_card.headline(nothing)
    assert (facts["n_stored"], facts["n_complete"], facts["first"]) == (0, 0, None)
    collection = write_dataset_card.stac_collection(
        "made", settings=fabricate.settings(), facts=facts, patches=nothing
    )
    assert collection["extent"]["temporal"]["interval"] == [[None, None]]

"""What is published: readable by those who get it, complete, and honest about where it comes from."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac
import pytest
import torch
import xarray as xr
import yaml
from safetensors.torch import save_file

from tests import fabricate
from workflow_scripts import (
    publish_dataset,
    publish_model,
    summarize_bands,
    weigh_locations,
    write_dataset_card,
)
from workflow_scripts.core import config
from workflow_scripts.core.stage import write_json
from workflow_scripts.publish.layout import place_store

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    {"name": "Made world", "license": "MIT", "url": "https://example.org/made", "citation": "Made (2026)"},
    {"name": "Polygons", "license": "CC-BY-4.0"},
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published folder of a fabricated dataset, and the dataset's own."""
    folder = tmp_path_factory.mktemp("publish")
    own, out = folder / "own", folder / "published"
    files = fabricate.write_dataset(own, n=6)
    options = fabricate.settings(notice="Says nothing about the Earth.", sources=SOURCES, title="Invented")
    outputs = {"weights": own / "weights.parquet", "shares": own / "weights.json"}
    weigh_locations.main(
        fabricate.job(inputs=files, outputs=outputs, params={"settings": options["weights"]})
    )
    summarize_bands.main(fabricate.job(inputs=files, outputs={"bands": own / "bands.json"}, params={}))
    files |= {"bands": str(own / "bands.json"), "shares": str(own / "weights.json")}
    outputs = {"card": own / "README.md", "collection": own / "collection.json"}
    write_dataset_card.main(
        fabricate.job(inputs=files, outputs=outputs, params={"settings": options}, dataset="made")
    )
    files |= {name: str(path) for name, path in outputs.items()} | {"weights": str(own / "weights.parquet")}
    outputs = {
        "croissant": out / "croissant.json",
        "stac_items": out / "items.parquet",
        "licenses": out / "LICENSES.md",
        "citation": out / "CITATION.cff",
    }
    job = fabricate.job(inputs=files, outputs=outputs, params={"settings": options}, dataset="made")
    publish_dataset.main(job)
    return SimpleNamespace(own=own, out=out, job=job)


def test_every_snippet_of_the_card_runs_in_the_published_folder(published, monkeypatch):
    monkeypatch.chdir(published.out)
    snippets = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), flags=re.S)
    assert snippets
    for snippet in snippets:
        names = {}
        exec(snippet, names)
        assert isinstance(names["reflectance"], xr.DataArray) and len(names["index"]) == 24


def test_croissant_is_valid_and_reads_the_tables(published, monkeypatch):
    mlcroissant = pytest.importorskip("mlcroissant")
    monkeypatch.chdir(published.out)
    dataset = mlcroissant.Dataset(jsonld="croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors, issues.report()
    rows = list(dataset.records("weights"))
    known = pd.read_parquet("weights.parquet")
    assert [row["weights/location_id"].decode() for row in rows] == known["location_id"].tolist()
    assert {f["@id"] for f in json.loads(Path("croissant.json").read_text())["distribution"]} <= {
        str(path.relative_to(published.out)) for path in published.out.rglob("*")
    }


def test_items_are_stac_and_lie_where_the_patches_do(published):
    table = pq.read_table(published.out / "items.parquet")
    about = json.loads(table.schema.metadata[b"stac-geoparquet"])
    collection = json.loads((published.out / "collection.json").read_text())
    assert pystac.Collection.from_dict(collection).assets["items"].href == "./items.parquet"
    assert about == {"version": "1.1.0", "collections": {"made": collection}}
    frame = gpd.read_parquet(published.out / "items.parquet")
    index = gpd.read_parquet(published.out / "patches.parquet").query("status == 'ok'")
    assert len(frame) == len(index) and frame["id"].is_unique
    needed = {"id", "geometry", "bbox", "links", "assets", "collection", "stac_extensions", "datetime"}
    assert needed <= set(table.column_names)
    assert str(table.schema.field("datetime").type) == "timestamp[us, tz=UTC]"
    fixed = needed | {"stac_version"}
    for row, shape in zip(table.to_pylist(), frame.geometry, strict=True):
        properties = {name: value for name, value in row.items() if name not in fixed}
        item = pystac.Item.from_dict(
            {
                "type": "Feature",
                "stac_version": row["stac_version"],
                "stac_extensions": row["stac_extensions"],
                "id": row["id"],
                "geometry": shape.__geo_interface__,
                "bbox": [row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")],
                "properties": properties | {"datetime": row["datetime"].isoformat()},
                "links": row["links"],
                "assets": row["assets"],
                "collection": row["collection"],
            },
            preserve_dict=True,
        )
        assert item.collection_id == "made" and item.assets["patches"].href == "./patches.zarr"
        patch = index[(index["location_id"] + "_" + index["season"]) == row["id"]].iloc[0]
        sides = [row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        np.testing.assert_allclose(sides, patch["geometry"].bounds, atol=1e-5)
        assert row["proj:transform"][2::3] == [patch["origin_x"], patch["origin_y"]]
        assert row["proj:code"] == f"EPSG:{patch['epsg']}"


def test_licenses_and_attributions_of_all_sources_are_there(published):
    text = (published.out / "LICENSES.md").read_text()
    for source in SOURCES:
        assert source["name"] in text and source["license"] in text
    assert "Made (2026)" in text
    block = yaml.safe_load((published.out / "README.md").read_text().split("---\n")[1])
    assert block["license"] == "other" and block["license_link"] == "LICENSES.md"
    citation = yaml.safe_load((published.out / "CITATION.cff").read_text())
    assert citation["title"] == "Invented" and citation["type"] == "dataset"
    assert "&id" not in (published.out / "CITATION.cff").read_text()
    assert "arXiv:2504.18256" in str(citation["references"])


def test_published_store_stays_when_the_dataset_changes_and_follows_when_published_again(published):
    object_ = next(iter(sorted((published.own / "patches.zarr" / "dn10").glob("c.*"))))
    copy = published.out / "patches.zarr" / "dn10" / object_.name
    before = copy.read_bytes()
    replaced = object_.with_suffix(".new")
    replaced.write_bytes(before[::-1])
    os.replace(replaced, object_)  # as the pipeline replaces an object
    assert copy.read_bytes() == before
    (published.out / "patches.zarr" / "dn10" / "c.99.0.0.0.0").write_bytes(b"left from before")
    place_store(published.own / "patches.zarr", published.out / "patches.zarr")
    assert copy.read_bytes() == before[::-1]
    assert not (published.out / "patches.zarr" / "dn10" / "c.99.0.0.0.0").exists()


def test_sources_are_gathered_from_what_the_options_name():
    document = config.merge(config.read(ROOT / "config.yaml"), config.read(ROOT / "recipes" / "ssl4eco.yaml"))
    sources = config.load(document, ROOT / "schemas").datasets["ssl4eco"]["report"]["sources"]
    text = json.dumps(sources)
    for words in ("Natural Earth", "Dinerstein", "GMBA", "Copernicus Sentinel", "MOD13A1"):
        assert words in text
    assert len({source["name"] for source in sources}) == len(sources) == 5
    demo = config.load(config.read(ROOT / "config.yaml"), ROOT / "schemas").datasets["demo"]
    assert [source["name"] for source in demo["report"]["sources"]] == ["the made world of this project"]


def test_model_card_loads_the_weights_and_tells_scores(tmp_path, monkeypatch):
    facts = {"backbone": "resnet18", "bands": json.dumps(["B02", "NDVI"]), "dataset_digest": "abc"}
    save_file({"conv1.weight": torch.ones(2, 2)}, tmp_path / "encoder.safetensors", metadata=facts)
    write_json(tmp_path / "options.json", {})
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    write_json(tmp_path / "score.json", fabricate.score("seco-s1", "knn", 0.625))
    out = tmp_path / "published"
    job = fabricate.job(
        inputs={
            "encoder": tmp_path / "encoder.safetensors",
            "options": tmp_path / "options.json",
            "metrics": tmp_path / "metrics.jsonl",
            "scores": [tmp_path / "score.json"],
        },
        outputs={
            "card": out / "README.md",
            "licenses": out / "LICENSES.md",
            "citation": out / "CITATION.cff",
        },
        params={
            "model": {"objective": "seco", "dataset": "made", "backbone": "resnet18"},
            "report": {"sources": SOURCES[:1], "notice": "Says nothing about the Earth."},
        },
        model="seco-s1",
    )
    publish_model.main(job)
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert "Says nothing about the Earth." in card and "| 0.625 |" in card
    monkeypatch.chdir(out)
    for snippet in re.findall(r"```python\n(.*?)```", card, flags=re.S):
        names = {}
        exec(snippet, names)
        assert names["bands"] == ["B02", "NDVI"]
        assert np.array_equal(names["weights"]["conv1.weight"].numpy(), np.ones((2, 2)))

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tests import fabricate
from workflow_scripts import summarize_bands, weigh_locations, write_report
from workflow_scripts.core import pictures
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.core.tables import dataset_digest
from workflow_scripts.report import (
    cost,
    inputs,
    maps,
    phenology,
    phenology_maps,
    reference,
    summary,
    tasks,
    timing,
    training,
)

NOTICE = "A made world says nothing about the Earth."
MODELS = {
    "mean": {"family": "mean", "seed": 0, "encoder": "mean_spectrum"},
    "random-s1": {"family": "random", "seed": 1, "encoder": "random"},
    "seco-s1": {"family": "seco", "seed": 1, "dataset": "made", "objective": "seco"},
    "seco-s2": {"family": "seco", "seed": 2, "dataset": "made", "objective": "seco"},
}


class Page(HTMLParser):
    """What a reader without eyes, or without network, would run into."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.pictures, self.ids, self.text, self.external = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        target = attributes.get("href") or attributes.get("src") or ""
        if target.startswith("#"):
            self.links.append(target[1:])
        elif target and not target.startswith("data:"):
            self.external.append(target)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


def write(folder, *, datasets, files, models=(), scores=()):
    """Write a report; the scores are files too."""
    models = {name: MODELS[name] for name in models}
    named = dict(files)
    for i, document in enumerate(scores):
        path = folder / f"score-{i}.json"
        path.write_text(json.dumps(document))
        named[f"scores/{document['model']}/{document['task']}/{document['probe']}"] = str(path)
    params = {
        "datasets": datasets,
        "models": models,
        "seed": 1,
        "config_digest": "abc",
        "logs": str(folder / "logs"),
    }
    job = fabricate.job(inputs=named, outputs={"report": folder / "report.html"}, params=params)
    write_report.main(job)
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One fabricated dataset with everything around it: its files and its report."""
    folder = tmp_path_factory.mktemp("world")
    files = fabricate.write_dataset(folder / "made", n=9)
    options = fabricate.settings(notice=NOTICE, examples=2, sources=[{"name": "Invented", "license": "MIT"}])
    outputs = {"weights": folder / "weights.parquet", "shares": folder / "weights.json"}
    weigh_locations.main(
        fabricate.job(inputs=files, outputs=outputs, params={"settings": options["weights"]})
    )
    summarize_bands.main(fabricate.job(inputs=files, outputs={"bands": folder / "bands.json"}, params={}))
    files |= {"weights": str(folder / "weights.json"), "bands": str(folder / "bands.json")}
    places = pd.read_parquet(files["locations"])
    known = pd.read_parquet(files["cycles"]).merge(places[["location_id", "lon", "lat"]], on="location_id")
    known[list(TRANSITIONS)] += pd.Timedelta(days=2)
    known.drop(columns="location_id").to_parquet(folder / "known.parquet")
    curve = pd.DataFrame({"date": pd.date_range("2020-12-01", "2023-01-31", freq="7D"), "ndvi": 0.5})
    places[["lon", "lat"]].merge(curve, how="cross").to_csv(folder / "ndvi.csv", index=False)
    files |= {
        "reference_phenology": str(folder / "known.parquet"),
        "reference_ndvi": str(folder / "ndvi.csv"),
    }
    mapped = places[["location_id", "lon", "lat"]].assign(location=range(9), red=0.5, green=0.1, blue=0.9)
    mapped.to_parquet(folder / "embeddings.parquet")
    ids = places["location_id"].tolist()
    similar = {"location_id": ids[3], "neighbors": [{"location_id": ids[0], "similarity": 0.987}]}
    (folder / "neighbors.json").write_text(json.dumps({"examples": [similar]}))
    files |= {
        "embeddings/seco-s1": str(folder / "embeddings.parquet"),
        "neighbors/seco-s1": str(folder / "neighbors.json"),
    }
    digest = dataset_digest(pd.read_parquet(files["patches"]))
    named = {f"datasets/made/{kind}": path for kind, path in files.items()}
    for seed, recorded in ((1, digest), (2, "another")):
        model = fabricate.write_model(folder / f"seco-s{seed}", seed=seed, dataset_digest=recorded)
        named |= {f"models/seco-s{seed}/{kind}": path for kind, path in model.items()}
    values = {"mean": 0.9, "random-s1": 0.6, "seco-s1": 0.5, "seco-s2": 0.7}
    scores = [
        fabricate.score(name, probe, value) for name, value in values.items() for probe in ("linear", "knn")
    ]
    html = write(folder, datasets={"made": options}, files=named, models=MODELS, scores=scores)
    dataset = inputs.load_dataset("made", options, files)
    return {"files": named, "options": options, "html": html, "dataset": dataset}


def test_page_is_self_contained_and_small(world):
    page = read(world["html"])
    assert page.external == []
    assert "@import" not in world["html"] and "<script" not in world["html"]
    assert len(world["html"]) < 6e6


def test_page_is_readable_without_eyes(world):
    page = read(world["html"])
    assert all(len(picture.get("alt", "")) > 20 for picture in page.pictures)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)
    assert '<html lang="en">' in world["html"]
    assert len(re.findall(r"<h1>", world["html"])) == 1
    assert world["html"].count("<table") == world["html"].count("<caption>")


def test_first_screen_has_the_notice_what_came_out_and_what_is_missing(world):
    first = world["html"].split("<nav")[0]
    for words in (NOTICE, "no scene passed the selection (3)", "0.7 km grid"):
        assert words in first
    assert "<td>36</td><td>32</td><td>11.1 %</td><td>8</td>" in first


def test_every_chapter_is_there(world):
    page = read(world["html"])
    assert [anchor for anchor in page.ids if anchor != "content"] == [
        *(chapter[0] for chapter in write_report.CHAPTERS),
        "training",
        "tasks",
        "provenance",
    ]


def test_an_encoder_of_other_data_is_warned_about(world):
    first = world["html"].split("<nav")[0]
    assert "Model seco-s2 was trained on another state of dataset made" in first
    assert "Model seco-s1 was trained" not in first


def test_rows_stand_in_fixed_order_whatever_the_scores(world):
    body = world["html"].split('id="tasks"')[1]
    places = [
        body.index(label)
        for label in ("seco (trained: seco)", "random (random weights)", "mean (mean spectrum")
    ]
    assert places == sorted(places)
    assert "0.600 ± 0.141" in body  # two seeds, 0.5 and 0.7
    assert "0.900 ± 0.040*" in body  # one run: between folds


@pytest.mark.parametrize(
    "kinds", [(), ("locations",), ("locations", "seasons"), ("locations", "seasons", "cycles", "greenness")]
)
def test_report_works_without_what_was_not_made(world, tmp_path, kinds):
    files = {f"datasets/made/{kind}": world["files"][f"datasets/made/{kind}"] for kind in kinds}
    page = read(write(tmp_path, datasets={"made": world["options"]}, files=files))
    assert "tasks" not in page.ids
    assert "gallery" not in page.ids
    assert ("locations" in page.ids) == bool(kinds)


def test_report_of_nothing_is_a_page(tmp_path):
    assert "0 datasets." in "".join(read(write(tmp_path, datasets={}, files={})).text)


def test_report_of_a_dataset_without_a_single_patch(world):
    dataset = world["dataset"]
    patches = dataset.patches.assign(
        status="missing", reason="no_candidate", datetime=pd.NaT, is_complete=False
    )
    empty = inputs.Dataset(**{**vars(dataset), "patches": patches})
    facts = {"Commit": "", "Configuration digest": "", "Seed": "1"}
    page = read(write_report.build_report([empty], [], scores=[], facts=facts))
    assert "losses" in page.ids
    assert "gallery" not in page.ids


def test_text_from_tables_cannot_break_the_page(world):
    dataset = world["dataset"]
    nasty = dataset.locations.assign(biome_name="<b>&\"'</b>")
    html = maps.locations_section(inputs.Dataset(**{**vars(dataset), "locations": nasty}))
    assert "<b>" not in html


def test_reference_by_id_place_or_pixel_gives_the_same_errors(world):
    dataset = world["dataset"]
    by_place = dataset.reference_phenology
    by_id = dataset.cycles.copy()
    by_id[list(TRANSITIONS)] += pd.Timedelta(days=2)
    tile, row, column = reference.modis_pixel(dataset.locations["lon"], dataset.locations["lat"])
    pixel = pd.DataFrame(
        {"location_id": dataset.locations["location_id"], "tile": tile, "row": row, "column": column}
    )
    by_pixel = by_id.merge(pixel, on="location_id").drop(columns="location_id")
    for known in (by_place, by_id, by_pixel):
        found = reference.compare_dates(dataset.cycles, dataset.locations, known, max_distance_km=0.5)
        assert found["date"].tolist() == list(TRANSITIONS)
        assert (found["n"] == found["n_known"]).all()
        np.testing.assert_allclose(found["mae_days"], 2)
        np.testing.assert_allclose(found["bias_days"], -2)


def test_known_cycles_that_were_not_found_lower_the_share(world):
    dataset = world["dataset"]
    half = dataset.cycles[dataset.cycles["location_id"] < "P004"]
    found = reference.compare_dates(half, dataset.locations, dataset.cycles, max_distance_km=1)
    assert found["n"].iloc[0] == 4 * 4
    assert found["n_known"].iloc[0] == 8 * 4


def test_stored_ndvi_is_that_of_the_pixels_around_the_known_place(world):
    dataset = world["dataset"]
    known = dataset.reference_ndvi.assign(date=pd.to_datetime(dataset.reference_ndvi["date"]))
    compared = reference.compare_ndvi(dataset.store, known, dataset.stored, size_m=640)
    assert len(compared) == len(dataset.stored)
    assert (compared["known"] == 0.5).all()
    summer = compared[compared["season"] == "summer"].set_index("location_id")["stored"]
    red, near_infrared = 1500 - 1200 * 0.9, 1600 + 1600 * 0.9
    assert summer["P000"] == pytest.approx((near_infrared - red) / (near_infrared + red), abs=0.01)


def test_windows_that_cross_new_year_and_absolute_ones():
    seasons = pd.DataFrame(
        {
            "location_id": ["a", "a"],
            "season": ["winter", "summer"],
            "start_doy": [330.0, np.nan],
            "end_doy": [60.0, np.nan],
            "start_date": [pd.NaT, pd.Timestamp("2021-06-01")],
            "end_date": [pd.NaT, pd.Timestamp("2021-07-01")],
        }
    )
    patches = pd.DataFrame(
        {
            "location_id": "a",
            "season": ["winter", "winter", "winter", "summer", "summer", "autumn"],
            "datetime": pd.to_datetime(
                ["2021-01-10 10:00", "2021-12-20", "2021-03-02", "2021-06-15", "2022-06-15", "2021-01-10"],
                format="ISO8601",
            ),
        },
        index=[5, 3, 1, 0, 2, 4],
    )
    assert timing.is_in_window(patches, seasons).tolist() == [True, True, False, True, False, False]


def test_series_show_the_fitted_curve_and_maps_their_values(world):
    dataset = world["dataset"]
    drawn = phenology._series(dataset, dataset.cycles["location_id"].iloc[0])
    assert drawn
    values = {layer.title: layer for layer in phenology_maps.layers(dataset)}
    assert [layer.is_cyclic for layer in values.values()] == [True] * 7 + [False] * 3
    assert values["Vegetation cycles per year"].values.dropna().eq(1).all()
    spring = dataset.seasons[dataset.seasons["season"] == "spring"]
    assert values["Begin of spring: greenup"].values.tolist() == spring["start_doy"].tolist()
    assert values["Distance of the donor"].values.notna().sum() == 1
    assert "Dates of the usual year" in world["html"] and "not the product MCD12Q2" in world["html"]
    for title in ("greenup", "Mid-greenup", "maturity", "Peak", "senescence", "Mid-greendown", "dormancy"):
        assert f"{title}, day of the year." in world["html"]


def test_circular_windows_recur_every_year():
    window = pd.DataFrame({"start_date": [pd.NaT], "start_doy": [330.0], "length_days": [95.0]})
    span = (pd.Timestamp("2020-01-01"), pd.Timestamp("2021-12-31"))
    found = phenology.occurrences(next(window.itertuples()), span)
    assert [(a.year, b.year) for a, b in found] == [(2020, 2020), (2020, 2021), (2021, 2021)]


def test_examples_come_from_different_biomes():
    places = pd.DataFrame({"location_id": list("abcdef"), "biome_name": ["x", "x", "x", "y", "y", ""]})
    assert maps.pick_examples(places, list("cbadef"), 4) == ["c", "d", "f", "b"]


def test_regions_are_found_where_locations_are_few_and_close():
    lon, lat = np.array([12.0, 12.1, -60.0]), np.array([47.0, 47.1, -3.0])
    assert maps.find_regions(lon, lat).tolist() == [0, 0, 1]
    everywhere = np.linspace(-179, 179, 200)
    assert (maps.find_regions(everywhere, everywhere / 2.1) == -1).all()


def test_true_color_has_one_stretch_and_shows_holes():
    dn = np.full((4, 1, 2), 2500, np.uint16)
    dn[:, 0, 1] = 0
    picture = pictures.true_color(dn, ["B02", "B03", "B04", "B08"], white=0.25)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 1].tolist() == [225, 225, 225]


def test_combined_seeds():
    models = [inputs.Model(name, entry["family"], entry["seed"], entry) for name, entry in MODELS.items()]
    documents = [fabricate.score("seco-s1", "linear", 0.4), fabricate.score("seco-s2", "linear", 0.6)]
    combined = tasks.combine_seeds(tasks.collect_scores(documents, models))
    cell = combined[(combined["metric"] == "macro_f1") & (combined["folds"] == "blocked")].iloc[0]
    assert (cell["mean"], cell["n_seeds"]) == (0.5, 2)
    assert cell["spread"] == pytest.approx(0.1414, abs=1e-3)


def test_long_curves_are_thinned_by_means():
    steps, values = training.thin(pd.Series(np.arange(3000.0)), pd.Series(np.arange(3000)))
    assert len(values) == training.MAX_POINTS
    np.testing.assert_allclose(steps, values)


def test_metrics_with_a_torn_last_line_are_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert inputs.read_lines(tmp_path / "metrics.jsonl")["step"].tolist() == [1]


def test_a_reference_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"report\.reference"):
        inputs.read_reference(str(tmp_path / "no.csv"))


def test_cost_adds_up_the_jobs_of_each_rule(tmp_path):
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    for name, line in {
        "read_tile.h18v04": "90\t0:01:30\t300\t0\t0\t0\t0\t0\t50\t60",
        "read_tile.h19v09": "60\t0:01:00\t500\t0\t0\t0\t0\t0\t50\t90",
        "sample_locations": "1\t0:00:01\t-\t-\t-\t-\t-\t-\t-\t-",
    }.items():
        path = tmp_path / "demo" / f"{name}.benchmark.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(header + line + "\n")
    rows = re.findall(r"<tr>(.*?)</tr>", cost.cost_section(tmp_path))
    cells = [re.findall(r">([^<]+)</t[hd]>", row) for row in rows]
    assert cells[1] == ["read_tile", "2", "2.5 min", "2.5 min", "500"]
    assert cells[2][:3] == ["sample_locations", "1", "1.0 s"]
    assert cells[-1][:2] == ["all", "3"]
    assert cost.cost_section(tmp_path / "nothing") == ""


def test_what_was_asked_speaks_of_images_only_where_some_were():
    asked = fabricate.settings()
    assert "patches of 640 m" in summary.what_was_asked(asked)
    asked["scenes"]["catalog"] = None
    assert "patches of" not in summary.what_was_asked(asked) and "no images" in summary.what_was_asked(asked)


def test_scores_of_each_class_are_shown():
    """Means over runs of each class over blocks, the most frequent first; a class without members is a dash."""
    models = [
        inputs.Model(n, MODELS[n]["family"], MODELS[n]["seed"], MODELS[n])
        for n in ("seco-s1", "seco-s2", "mean")
    ]
    documents = []
    for name, f1 in (("seco-s1", 0.5), ("seco-s2", 0.7), ("mean", 0.2)):
        document = fabricate.score(name, "linear", 0.5)
        rows = [
            {"code": 4, "name": "Forest", "n": 3, "f1": f1},
            {"code": 1, "name": "Mire", "n": 90, "f1": f1 / 2},
        ]
        rows.append({"code": 9, "name": "Ice", "n": 0, "f1": None})
        document["folds"]["blocked"] = {**document["folds"]["random"], "per_output": rows}
        documents.append(document)
    html = tasks.tasks_section(documents, models)
    table = html.split("<summary>By class</summary>")[1].split("</table>")[0]
    cells = [re.findall(r"<t[dh][^>]*>(?:<span>)?([^<]*)", row) for row in table.split("<tr>")[2:]]
    assert [row[:4] for row in cells] == [
        ["Mire", "90", "0.300", "0.100"], ["Forest", "3", "0.600", "0.200"], ["Ice", "0", "–", "–"],
    ]  # fmt: skip
    assert "blocked folds" in table

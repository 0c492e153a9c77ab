"""The paper's tables: printed figures, layout, and which figures of ours may enter."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pretrain import recipes
from workflow_scripts import write_paper_tables
from workflow_scripts.report.paper_tables import contradictions, lay_out, published, read_figures, refuse

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def figures() -> dict:
    """Published figures."""
    return read_figures()


def document(
    model: str, task: str, value: float, *, n: int = 52_000, probe: str = "linear", **more: object
) -> dict:
    """A probe's document on a task."""
    score = {"mean": value, "std": 0.01, "folds": [value] * 10}
    scores = {"macro_f1": score, "accuracy": score, "r2": score, "mae": score}
    division = {"scores": scores, "per_output": [{"code": "temp", "r2": value, "mae": 1.25}]}
    return {
        "model": model, "task": task, "probe": probe, "dataset": "d", "counts": {"n_used": n},
        "folds": {"random": division, "blocked": {"scores": {}}}, **more,
    }  # fmt: skip


def test_every_table_is_whole(figures: dict) -> None:
    """All tables of results, each row as long as its columns, each figure a number; some checked by eye."""
    assert list(figures["tables"]) == ["3", "4", "5", "6", "7", *(f"A-{i}" for i in range(2, 11))]
    for table in figures["tables"].values():
        assert all(len(cells) == len(table["columns"]) for cells in table["rows"].values())
        assert all(published(cell) for cells in table["rows"].values() for cell in cells)
    full = ["seco", "satmae", "satlas", "croma", "ssl4eo-s12", "dofa", "seco-eco"]
    assert all(
        list(table["rows"]) == full for name, table in figures["tables"].items() if name not in ("6", "A-2")
    )
    rows = {name: table["rows"] for name, table in figures["tables"].items()}
    assert published(rows["3"]["seco-eco"][0]) == (56.1, 0.7)
    assert published(rows["5"]["seco-eco"][1]) == (-16.3, None)
    assert published(rows["6"]["moco-eco"][7]) == (81.5, 0.4)
    assert published(rows["7"]["seco-eco"][2]) == (67.7, 0.2)
    assert published(rows["A-2"]["seco-eco-calendar"][3]) == (40.8, 0.0)
    assert published(rows["A-10"]["dofa"][4]) == (23943.5, 38.3)


def test_both_contradicting_figures_are_printed(figures: dict) -> None:
    """CLEF and BioMassters of SeCo-Eco differ between tables; every pair is named with its tables."""
    found = contradictions(figures)
    assert "SeCo-Eco, geolifeclef, micro F1, LP: 22.3 (table 4, 6) and 22.7 (table A-2)" in found
    (biomass,) = [line for line in found if line.startswith("SeCo-Eco, biomassters-summer, R², LP")]
    assert all(value in biomass for value in ("75.3 (table 5)", "75.2 (table 6, 7, A-8)", "75.1 (table A-2)"))


def test_ours_stand_under_the_papers(figures: dict) -> None:
    """A run fills its row; several runs their mean and deviation; what was not run stays empty; others follow."""
    documents = [
        *(document(f"seco-eco-s{i}", "biomes", value) for i, value in enumerate((0.55, 0.57), start=1)),
        document("random", "biomes", 0.2),
        document("seco-eco-s1", "chelsa", 0.8),
    ]
    families = {"seco-eco-s1": "seco-eco", "seco-eco-s2": "seco-eco", "random": "random"}
    tables, refused = lay_out(figures, documents, families=families, notices={"d": None})
    assert refused == []
    rows = {row[0]: row[1:] for row in tables["3"]}
    assert rows["SeCo-Eco, paper"] == ["56.1 ± 0.7", "51.1 ± 0.9", "59.4 ± 1.0", "59.5 ± 0.8"]
    assert rows["SeCo-Eco, ours"] == ["56.0 ± 1.4 (2)", "", "", ""]
    assert rows["random, ours"][0] == "20.0 ± 1.0"
    assert rows["SeCo, ours"] == [""] * 4
    assert {row[0]: row[1:] for row in tables["A-6"]}["SeCo-Eco, ours"][8] == "56.0 ± 1.4 (2)"  # micro F1
    temperature = {row[0]: row[1:] for row in tables["A-9"]}["SeCo-Eco, ours"]
    assert temperature[0] == "1.2"  # an error in the target's own unit
    assert temperature[2] == "80.0"


def test_made_data_miniatures_and_blind_tests_stay_out(figures: dict) -> None:
    """Each is named with its reason and shows in no table."""
    documents = [
        document("m", "biomes", 0.99),
        document("m", "cavm", 0.99, n=300, dataset="e"),
        document("m", "geolifeclef", 0.99, n=5138, dataset="e"),
    ]
    tables, refused = lay_out(figures, documents, families={"m": "seco-eco"}, notices={"d": "A made world."})
    assert refused == [
        "m on biomes: made data (d)",
        "m on cavm: 300 of the paper's 79,000 locations",
        "m on geolifeclef: the paper's figures are of a blind test",
    ]
    assert not any(cell.startswith("99") for rows in tables.values() for row in rows for cell in row)
    enough = document("m", "biomes", 0.5, n=46_801)
    assert refuse(enough, figures, task="biomes", notices={}) is None


def test_page(tmp_path: Path) -> None:
    """The stage writes every table with its caption."""
    (tmp_path / "linear.json").write_text(json.dumps(document("m", "biomes", 0.5)))
    job = SimpleNamespace(
        input=SimpleNamespace(scores=[str(tmp_path / "linear.json")]),
        output=SimpleNamespace(tables=str(tmp_path / "paper-tables.html")),
        params=SimpleNamespace(models={"m": {"family": "seco-eco"}}, notices={"d": None}),
    )
    write_paper_tables.main(job)
    html = (tmp_path / "paper-tables.html").read_text()
    assert html.count("<table") == 14
    assert "Table A-10" in html
    assert "50.0 ± 1.0" in html


def test_ablations_differ_in_one_thing() -> None:
    """Designs: as many places and steps; seasons: the places complete in both sets; three runs of each."""
    models = yaml.safe_load((ROOT / "recipes" / "paper-tables.yaml").read_text())["models"]
    assert all(len(entry["seeds"]) >= 3 for entry in models.values() if "objective" in entry)

    def learned(name: str) -> dict:
        entry = {key: value for key, value in models[name].items() if key not in ("seeds", "dataset")}
        return recipes.what_is_learned(recipes.resolve({**entry, "seed": 1}))

    designs = [learned(name) for name in models if name.endswith("-50k")]
    assert len(designs) == 3 and designs[0] == designs[1] == designs[2]
    assert designs[0]["n_locations"] == 50_000
    here, there = "seco-eco-same-places", "seco-eco-calendar"
    for one, other in ((here, there), (there, here)):
        assert models[one]["complete_in"] == [models[other]["dataset"]]
    assert {**learned(here), "complete_in": 0} == {**learned(there), "complete_in": 0}
    assert {k for k, v in learned("moco-eco").items() if v != learned("seco-eco")[k]} == {
        "objective",
        "schedule",
    }

"""Tasks: options, class tables, encoding of labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator

from pretrain.downstream.tasks import (
    CLASS_TABLES,
    KINDS,
    SOURCE_CLASSES,
    Task,
    class_table,
    encode_targets,
    output_table,
    with_classes,
)

SCHEMA = Path(__file__).parents[1] / "schemas" / "tasks.schema.yaml"


def task(**settings: object) -> Task:
    """A task on dataset `d`."""
    return Task.from_settings("t", {"dataset": "d", "target": "y", **settings})


def test_class_ids_do_not_depend_on_what_is_present() -> None:
    """Code 13 has id 12 among RESOLVE's biomes, though only two codes occur."""
    biomes = task(kind="classification", classes="resolve-biomes")
    targets, is_known = encode_targets({"y": np.array([13, 4, -1], np.int16)}, biomes)
    assert targets.shape == (3, 14)
    assert targets[:2].argmax(axis=1).tolist() == [12, 3]
    assert is_known.tolist() == [True, True, False]


def test_codes_of_any_type() -> None:
    """Whole floats (a column with NaN), strings and ints name the same class."""
    numbers = task(kind="classification", classes=[1, {"code": 5, "name": "five"}])
    targets, is_known = encode_targets({"y": np.array([5.0, np.nan, 1.0])}, numbers)
    assert targets[:, 1].tolist() == [1, 0, 0]
    assert is_known.tolist() == [True, False, True]
    words = task(kind="classification", classes=["oak", "pine"])
    targets, is_known = encode_targets({"y": np.array(["pine", "", None], object)}, words)
    assert targets[0].tolist() == [0, 1]
    assert is_known.tolist() == [True, False, False]


def test_unknown_code_is_an_error_and_ignored_code_is_missing() -> None:
    """A code outside the table is named; one in `ignore` counts as no label."""
    with pytest.raises(ValueError, match=r"codes \['98'\] are not in the class table"):
        encode_targets({"y": np.array([1, 98])}, task(kind="classification", classes=[1, 2]))
    lakes = task(kind="classification", classes=[1, 2], ignore=[98])
    assert encode_targets({"y": np.array([1, 98])}, lakes)[1].tolist() == [True, False]


def test_minus_one_is_missing_in_integers_only() -> None:
    """-1.0 is a temperature; in a column of integers -1 says that there is none."""
    targets, is_known = encode_targets({"y": np.array([-1.0, np.nan, 2.0])}, task(kind="regression"))
    assert targets[:, 0].tolist() == [-1, 0, 2]
    assert is_known.tolist() == [True, False, True]
    assert encode_targets({"y": np.array([-1, 2])}, task(kind="regression"))[1].tolist() == [False, True]


def test_several_targets_need_all_columns() -> None:
    """A row with one value missing is missing."""
    climate = task(kind="regression", target=["a", "b"])
    columns = {"a": np.array([1.0, 2.0]), "b": np.array([np.nan, 3.0])}
    targets, is_known = encode_targets(columns, climate)
    assert targets.tolist() == [[0, 0], [2, 3]]
    assert is_known.tolist() == [False, True]
    assert output_table(climate) == [{"code": "a", "name": "a"}, {"code": "b", "name": "b"}]


def test_distributions_are_normalized_and_checked() -> None:
    """Rows are divided by their sum; a negative share is refused."""
    bins = task(kind="distribution", target=["a", "b"])
    targets, _ = encode_targets({"a": np.array([1.0]), "b": np.array([3.0])}, bins)
    assert targets.tolist() == [[0.25, 0.75]]
    with pytest.raises(ValueError, match="negative or no share"):
        encode_targets({"a": np.array([-1.0]), "b": np.array([3.0])}, bins)


def test_multilabel_columns_hold_zero_and_one() -> None:
    """Counts are no labels."""
    labels = task(kind="multilabel", target=["a", "b"])
    with pytest.raises(ValueError, match="must hold 0 and 1"):
        encode_targets({"a": np.array([2]), "b": np.array([0])}, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "ranking"}, "kind 'ranking' is not one of"),
        ({"kind": "classification"}, "the fixed table of codes"),
        ({"kind": "regression", "neighbours": 3}, "unknown options"),
        ({"kind": "distribution"}, "at least two columns"),
    ],
)
def test_impossible_tasks(settings: dict, message: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(ValueError, match=message):
        task(**settings)


def test_bad_class_tables() -> None:
    """Unknown names and repeated codes are refused."""
    with pytest.raises(ValueError, match="resolve-biomes"):
        class_table("biomes")
    with pytest.raises(ValueError, match="different codes"):
        class_table([1, 1])


def test_schema_agrees_with_the_code() -> None:
    """Same options, same defaults, same kinds and class tables."""
    schema = yaml.safe_load(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    options = schema["additionalProperties"]["properties"]
    fields = Task.__dataclass_fields__
    assert set(options) == set(fields) - {"name"}
    assert options["kind"]["enum"] == list(KINDS)
    assert set(options["classes"]["anyOf"][0]["enum"]) == {*CLASS_TABLES, SOURCE_CLASSES}
    assert set(options["metric"]["enum"]) == {None} | {
        name for kind in KINDS.values() for name in kind.metrics
    }
    for name in ("mode", "temperature", "device", "folds", "block_km", "validation_share"):
        assert options[name]["default"] == fields[name].default


def test_schema_accepts_and_refuses() -> None:
    """A full entry passes; an unknown key or a value out of range does not."""
    validator = Draft202012Validator(yaml.safe_load(SCHEMA.read_text()))
    entry = {
        "dataset": "demo-eval",
        "target": "biome_num",
        "kind": "classification",
        "classes": "resolve-biomes",
        "mode": "fast",
        "folds": 5,
        "block_km": 2,
    }
    assert validator.is_valid({"demo-biome": entry})
    assert not validator.is_valid({"demo biome": entry})
    assert not validator.is_valid({"demo-biome": entry | {"fold": 3}})
    assert not validator.is_valid({"demo-biome": entry | {"folds": 1}})
    del entry["classes"]
    assert not validator.is_valid({"demo-biome": entry})
    assert validator.is_valid({"demo-biome": entry | {"kind": "regression"}})


def test_lists_of_codes_are_multilabel() -> None:
    """Each row's codes become ones; an empty list is known to hold none, a missing one is not."""
    genera = task(kind="multilabel", classes=["Abies", "Acer", "Pinus"], ignore=["Cleared"])
    values = np.array([["Pinus", "Abies"], np.array(["Acer"]), [], None, ["Cleared"]], object)
    targets, is_known = encode_targets({"y": values}, genera)
    assert targets[:3].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert is_known.tolist() == [True, True, True, False, True]
    with pytest.raises(ValueError, match=r"codes \['Quercus'\]"):
        encode_targets({"y": np.array([["Quercus"]], object)}, genera)


def test_classes_of_the_labels() -> None:
    """`classes: labels` takes all codes of the column, numbers by size; nothing missing is a class."""
    column = pd.Series([["10", "9"], [], None, ["100"]])
    found = with_classes(task(kind="multilabel", classes="labels"), pd.DataFrame({"y": column}))
    assert [code for code, _ in class_table(found.classes)] == [9, 10, 100]
    words = with_classes(
        task(kind="classification", classes="labels"), pd.DataFrame({"y": ["oak", "", "fir"]})
    )
    assert output_table(words) == [{"code": "fir", "name": "fir"}, {"code": "oak", "name": "oak"}]


def test_metric_and_weight_belong_to_a_kind() -> None:
    """A metric of another kind, and a weight of positives without any, are refused."""
    assert task(kind="multilabel", metric="micro_map").main_metric == "micro_map"
    assert task(kind="multilabel").main_metric == "micro_f1"
    with pytest.raises(ValueError, match="metric 'r2' is not one of"):
        task(kind="multilabel", metric="r2")
    with pytest.raises(ValueError, match="`pos_weight` is of multilabel"):
        task(kind="regression", pos_weight=2.0)

"""Configuration: strict, merged as documented, errors that say what to write."""

import copy
from pathlib import Path

import pytest
import yaml

from pretrain import recipes
from workflow_scripts.core import config

ROOT = Path(__file__).resolve().parents[1]
PROJECT = yaml.safe_load((ROOT / "config.yaml").read_text())


def load(**user):
    return config.load(config.merge(PROJECT, user), ROOT / "schemas", recipes.resolve)


def changed(path, value):
    document = copy.deepcopy(PROJECT)
    *parents, last = path.split(".")
    entry = document
    for key in parents:
        entry = entry.setdefault(key, {})
    entry[last] = value
    return document


def test_the_projects_own_configuration_is_valid():
    settings = load()
    assert settings.datasets["demo"]["scenes"]["choice"] == "clearest"
    assert settings.datasets["demo"]["patches"]["size_m"] == 640
    assert "demo-seco-s1" in settings.models and settings.models["demo-seco-s2"]["seed"] == 2
    assert settings.models["demo-seco-s2"]["family"] == "demo-seco"
    assert settings.models["mean-spectrum"]["seed"] == settings.seed


def test_a_users_datasets_replace_the_demo_and_the_rest_merges():
    settings = load(
        datasets={"mysites": {"locations": {"design": "file", "path": "sites.csv"}}},
        defaults={"scenes": {"max_cloud_cover": 40}},
    )
    assert list(settings.datasets) == ["mysites"]
    assert settings.models == {} and settings.tasks == {}
    scenes = settings.datasets["mysites"]["scenes"]
    assert scenes["max_cloud_cover"] == 40 and scenes["candidates"] == 5
    assert settings.datasets["mysites"]["report"]["notice"] is None


def test_models_whose_options_contradict_each_other_are_told_with_the_rest():
    models = {"large": {"dataset": "demo", "objective": "seco", "batch_size": 100, "queue_size": 250}}
    models["uneven"] = models["large"] | {"queue_size": 300, "processes": 3}
    models["random"] = {"encoder": "random"}
    document = config.merge(PROJECT, {"datasets": PROJECT["datasets"], "models": models})
    with pytest.raises(ValueError, match="the configuration has 2 error") as caught:
        config.load(document, ROOT / "schemas", recipes.resolve)
    assert "models.large: batch_size = 100 must divide queue_size = 250" in str(caught.value)
    assert "models.uneven: batch_size = 100 is not divisible by processes = 3" in str(caught.value)


@pytest.mark.parametrize("section", PROJECT["defaults"])
def test_config_yaml_lists_every_option_with_its_default(section):
    properties = yaml.safe_load((ROOT / f"schemas/{section}.schema.yaml").read_text())["properties"]
    options = PROJECT["defaults"][section]
    assert set(options) == set(properties)
    assert {k: v["default"] for k, v in properties.items() if "default" in v} == {
        k: options[k] for k, v in properties.items() if "default" in v
    }
    assert all("description" in entry for entry in properties.values())


def test_nothing_of_the_made_world_stands_in_the_defaults():
    assert "demo" not in yaml.safe_dump(PROJECT["defaults"])


def test_without_datasets_of_their_own_users_get_the_demo():
    assert "demo" in load(seed=7).datasets and load(seed=7).seed == 7


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("datasets.demo.locations.spacng_m", 1, ["datasets.demo.locations", "'spacng_m'", "'spacing_m'"]),
        ("datasets.demo.locations.spacing_m", -5, ["datasets.demo.locations.spacing_m", "-5"]),
        ("datasets.demo.seasons.strategy", "lunar", ["seasons.strategy", "'lunar'", "calendar"]),
        ("datasets.demo.scenes.max_cloud_cover", 400, ["max_cloud_cover", "400", "100"]),
        ("defaults.patches.size_m", 2561, ["defaults.patches.size_m", "2561", "20"]),
        ("seed", "abc", ["seed", "'abc'", "integer"]),
        ("colour", "red", ["top level", "'colour'"]),
        ("datasets.demo.scenes.catalog", "nowhere", ["'nowhere'", "planetary-computer"]),
        ("models.demo-seco.dataset", "dmo", ["models.demo-seco.dataset", "'dmo'", "demo"]),
        ("tasks.demo-biome.target", "soil", ["tasks.demo-biome.target", "'soil'", "biome_num"]),
    ],
)
def test_errors_say_which_where_and_what_is_allowed(path, value, words):
    with pytest.raises(ValueError) as error:
        config.load(changed(path, value), ROOT / "schemas")
    for word in words:
        assert word in str(error.value)


def test_lists_are_replaced_not_merged():
    assert config.overlay({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"d": 2}}) == {
        "a": [3],
        "b": {"c": 1, "d": 2},
    }


@pytest.mark.parametrize(
    "names", [["ssl4eco"], ["ssl4eco", "ssl4eco-calendar"], ["region"], ["paper-tasks"]], ids="+".join
)
def test_recipes_are_valid(names):
    user = {}
    for name in names:
        user = config.overlay(user, yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text()))
    settings = load(**user)
    assert "demo" not in settings.datasets
    if "ssl4eco-calendar" in names:
        first, second = settings.datasets["ssl4eco"], settings.datasets["ssl4eco-calendar"]
        assert second["locations"] == first["locations"]
        assert second["seasons"]["strategy"] == "calendar"
        # what else must be equal for the seasons to be all that differs
        assert second["seasons"]["lengths"] == "phenology"
        assert (second["scenes"], second["patches"]) == (first["scenes"], first["patches"])


def test_the_comparison_on_the_made_world_differs_in_one_thing_at_a_time():
    recipe = yaml.safe_load((ROOT / "recipes/made-world-comparison.yaml").read_text())
    settings = load(**config.overlay(PROJECT, recipe))
    trained = {name: entry for name, entry in settings.models.items() if "dataset" in entry}
    families = dict.fromkeys(entry["family"] for entry in trained.values())
    assert {f"{family}-s{seed}" for family in families for seed in (1, 2, 3)} == set(trained)
    assert {f"random-s{seed}" for seed in (1, 2, 3)} < set(
        settings.models
    ) and "mean-spectrum" in settings.models
    plain = trained["demo-seco-s1"]
    differences = {
        family: {
            key
            for key in trained[f"{family}-s1"].keys() | plain.keys()
            if trained[f"{family}-s1"].get(key) != plain.get(key)
        }
        for family in families
    }
    assert differences == {
        "demo-seco": set(),
        "demo-moco": {"family", "objective"},
        "demo-one-season": {"family", "objective", "seasons"},
        "demo-calendar-seco": {"family", "dataset"},
    }
    calendar, demo = settings.datasets["demo-calendar"], settings.datasets["demo"]
    assert calendar["seasons"]["strategy"] == "calendar" and calendar["locations"] == demo["locations"]
    assert calendar["scenes"] == demo["scenes"] and calendar["patches"] == demo["patches"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"from": {"dataset": "nowhere", "until": "locations"}}, ["from.dataset", "'nowhere'"]),
        (
            {"from": {"dataset": "demo", "until": "locations"}, "locations": {"spacing_m": 500}},
            ["variant.locations", "remove it"],
        ),
        ({"from": {"dataset": "variant", "until": "phenology"}}, ["starts from another dataset itself"]),
    ],
)
def test_variants_of_a_dataset_take_over_or_are_refused(entry, words):
    document = changed("datasets.variant", entry)
    with pytest.raises(ValueError) as error:
        config.load(document, ROOT / "schemas")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("part", ["assumed", "measured"])
def test_config_yaml_lists_every_rate_with_its_default(part):
    properties = yaml.safe_load((ROOT / "schemas/estimate.schema.yaml").read_text())["properties"]
    rates = properties[part]["properties"]
    assert PROJECT["estimate"][part] == {name: entry["default"] for name, entry in rates.items()}
    assert PROJECT["estimate"]["cores"] == properties["cores"]["default"]

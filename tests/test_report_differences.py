"""Tests of differences against hand-computed values, and the sentences that are refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.report.differences import (
    compare_runs,
    corrected_t_test,
    differences_section,
    holm,
    judge_families,
)
from workflow_scripts.report.inputs import Model


def model(name: str, family: str, **settings: object) -> Model:
    """A model as the report knows it."""
    return Model(name, family, None, settings)


def document(
    name: str, task: str, folds: list[float], *, metric: str = "macro_f1", digest: str = "d"
) -> dict:
    """A probe's document of ten folds of 100 locations."""
    score = {"mean": float(np.mean(folds)), "std": float(np.std(folds)), "folds": folds}
    division = {"digest": digest, "sizes": [100] * len(folds), "scores": {metric: score}}
    return {
        "model": name, "task": task, "probe": "linear", "main_metric": metric, "folds": {"blocked": division}
    }  # fmt: skip


def test_corrected_t_by_hand() -> None:
    """Three folds, differences 1, 2, 3: t = 2 / sqrt((1/3 + 1/2) · 1) with two degrees of freedom."""
    p = corrected_t_test([1, 2, 3], n_train=200, n_test=100)
    assert p == pytest.approx(2 * stats.t.sf(2 / np.sqrt(5 / 6), 2))
    assert p > stats.ttest_1samp([1, 2, 3], 0).pvalue
    assert corrected_t_test([0, 0, 0], n_train=2, n_test=1) == 1
    assert np.isnan(corrected_t_test([1], n_train=2, n_test=1))


def test_corrected_test_keeps_its_level_where_the_usual_one_does_not() -> None:
    """Two rules that are equally good, scored by cross-validation on overlapping parts: few false alarms."""
    rng = np.random.default_rng(0)
    alarms = {"corrected": 0, "usual": 0}
    for _ in range(300):
        # ten folds whose differences share a part, as heads of overlapping training sets do
        shared = rng.normal(0, np.sqrt(0.1))
        change = shared + rng.normal(0, 1, 10) * np.sqrt(0.9)
        alarms["corrected"] += corrected_t_test(change, n_train=900, n_test=100) < 0.05
        alarms["usual"] += stats.ttest_1samp(change, 0).pvalue < 0.05
    assert alarms["corrected"] / 300 < 0.08 < alarms["usual"] / 300


def test_holm_by_hand() -> None:
    """0.01 · 3, then 0.02 · 2, then the largest so far; an undefined p does not count."""
    np.testing.assert_allclose(holm([0.02, 0.01, np.nan, 0.03]), [0.04, 0.03, np.nan, 0.04])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    assert holm([]).size == 0


def test_runs_are_compared_on_equal_folds_only() -> None:
    """Adjusted over tasks; a division that differs is left out."""
    models = [model("a-s1", "a"), model("a-s2", "a"), model("b", "b", encoder="mean_spectrum")]
    rng = np.random.default_rng(0)
    documents = []
    for task, digests in (("t1", "dd"), ("t2", "dd"), ("t3", "de")):
        base = rng.normal(0.5, 0.05, 10)
        documents.append(document("a-s1", task, (base + 0.1).tolist(), digest=digests[0]))
        documents.append(document("a-s2", task, (base + 9).tolist(), digest=digests[0]))
        noise = rng.normal(0, 0.02, 10)
        documents.append(document("b", task, (base + noise).tolist(), digest=digests[1]))
    compared = compare_runs(documents, models)
    assert compared["task"].tolist() == ["t1", "t2"]
    np.testing.assert_allclose(compared["difference"], 0.1, atol=0.02)
    np.testing.assert_allclose(compared["p_adjusted"], holm(compared["p"]))
    assert (compared["p_adjusted"] >= compared["p"]).all()


def runs_of(family: str, means: list[float], metric: str = "macro_f1") -> tuple[list[Model], list[dict]]:
    """Runs of a family on one task, one mean each."""
    models = [model(f"{family}-s{i}", family) for i in range(len(means))]
    return models, [
        document(m.name, "t", [v] * 10, metric=metric) for m, v in zip(models, means, strict=True)
    ]


def test_fewer_than_three_runs_say_nothing() -> None:
    """Two runs of one side: no sentence with the word, however large the difference."""
    (a, of_a), (b, of_b) = runs_of("a", [0.9, 0.91]), runs_of("b", [0.1, 0.11, 0.12])
    (sentence,) = judge_families([*of_a, *of_b], [*a, *b])
    assert "no statement on which is better" in sentence
    assert "a has 2" in sentence
    assert "is better on" not in sentence
    assert "is better on" not in differences_section([*of_a, *of_b], [*a, *b])


def test_three_runs_may_say_it() -> None:
    """Three runs each: better where the difference exceeds that between seeds; of errors, the lower one."""
    for metric, expected in (("macro_f1", "a"), ("rmse", "b")):
        a, of_a = runs_of("a", [0.90, 0.91, 0.92], metric)
        b, of_b = runs_of("b", [0.10, 0.11, 0.12], metric)
        (sentence,) = judge_families([*of_a, *of_b], [*a, *b])
        assert f"{expected} is better on t" in sentence
    a, of_a = runs_of("a", [0.2, 0.5, 0.8])
    b, of_b = runs_of("b", [0.3, 0.5, 0.6])
    (sentence,) = judge_families([*of_a, *of_b], [*a, *b])
    assert "no difference that exceeds that between seeds" in sentence


def test_an_encoder_without_chance_is_one_number() -> None:
    """The mean spectrum needs no seeds, the trained side three."""
    a, of_a = runs_of("a", [0.90, 0.91, 0.92])
    fixed = model("spectrum", "spectrum", encoder="mean_spectrum")
    documents = [*of_a, document("spectrum", "t", [0.5] * 10)]
    (sentence,) = judge_families(documents, [*a, fixed])
    assert "a is better on t" in sentence
    (sentence,) = judge_families([*of_a[:2], documents[-1]], [*a[:2], fixed])
    assert "no statement" in sentence


def test_unequal_effort_is_told() -> None:
    """Other numbers of places or steps stand beside the verdict; equal ones say nothing."""
    (a, of_a), (b, of_b) = runs_of("a", [0.9, 0.91, 0.92]), runs_of("b", [0.1, 0.11, 0.12])
    a = [replace(m, encoder={"steps": "19500", "n_locations": "50000"}) for m in a]
    for steps, words in (
        ("19500", None),
        ("18000", "Not of equal effort: trained on 19,500 and 18,000 steps."),
    ):
        other = [replace(m, encoder={"steps": steps, "n_locations": "50000"}) for m in b]
        (sentence,) = judge_families([*of_a, *of_b], [*a, *other])
        assert "a is better on t" in sentence
        assert ("Not of equal effort" in sentence) is bool(words) and (words or "") in sentence


def test_published_weights_are_one_run() -> None:
    """Of a single published encoder nothing is said but fold by fold."""
    a, of_a = runs_of("a", [0.9, 0.91, 0.92])
    other = model("p", "p", encoder="published")
    (sentence,) = judge_families([*of_a, document("p", "t", [0.1] * 10)], [*a, other])
    assert "no statement on which is better. It needs 3 pretraining runs; p has 1" in sentence

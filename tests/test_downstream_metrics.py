"""Metrics on small cases worked out by hand."""

import numpy as np
import pytest

from pretrain.downstream import losses, metrics


def test_classification_by_hand() -> None:
    """Three classes known, a fourth neither present nor predicted: it does not count."""
    truth = np.eye(4)[[0, 0, 0, 1, 1, 2]]
    predicted = np.eye(4)[[0, 0, 1, 1, 0, 1]]
    # class 0: tp 2, fp 1, fn 1 -> F1 2/3; class 1: tp 1, fp 2, fn 1 -> 2/5; class 2: 0
    scores = metrics.classification_scores(predicted, truth)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert scores["accuracy"] == pytest.approx(3 / 6)
    details = metrics.classification_details(predicted, truth)
    assert [row["n"] for row in details] == [3, 2, 1, 0]
    assert details[0] == pytest.approx({"f1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "n": 3})
    assert details[1] == pytest.approx({"f1": 2 / 5, "precision": 1 / 3, "recall": 1 / 2, "n": 2})
    assert details[2]["f1"] == 0
    assert np.isnan(details[3]["f1"])


def test_class_only_predicted_counts_as_zero() -> None:
    """As in scikit-learn, a class that is predicted but never true has F1 0."""
    truth, predicted = np.eye(3)[[0, 0]], np.eye(3)[[0, 2]]
    assert metrics.classification_scores(predicted, truth)["macro_f1"] == pytest.approx(1 / 3)


def test_regression_by_hand() -> None:
    """R2, MAE and RMSE of one target."""
    truth = np.array([[1.0], [2.0], [3.0], [6.0]])
    predicted = np.array([[1.0], [3.0], [3.0], [4.0]])
    scores = metrics.regression_scores(predicted, truth)
    # residuals 0, 1, 0, 4 of a total of 14
    assert scores == pytest.approx({"r2": 1 - 5 / 14, "mae": 0.75, "rmse": np.sqrt(5 / 4)})


def test_constant_target_has_no_r2() -> None:
    """A constant column's R2 is undefined and leaves the mean to the others."""
    truth = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    scores = metrics.regression_scores(truth.copy(), truth)
    assert scores == {"r2": 1.0}
    assert np.isnan(metrics.regression_scores(truth[:, 1:], truth[:, 1:])["r2"])
    details = metrics.regression_details(truth, truth)
    assert np.isnan(details[1]["r2"])
    assert details[1]["mae"] == 0


def test_multilabel_by_hand() -> None:
    """A label without positives is left out of macro scores; its false alarms count in micro F1."""
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    predicted = np.array([[0.9, 0.2, 0.6], [0.4, 0.8, 0.1], [0.3, 0.7, 0.1]])
    # chosen: row 0 labels 0 and 2, rows 1 and 2 label 1: 3 hits, 4 chosen, 4 true
    scores = metrics.multilabel_scores(predicted, truth)
    assert scores["micro_f1"] == pytest.approx(2 * 3 / 8)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["macro_map"] == pytest.approx(1.0)
    details = metrics.multilabel_details(predicted, truth)
    assert details[2]["n"] == 0
    assert np.isnan(details[2]["f1"])


def test_multilabel_without_any_positive() -> None:
    """Nothing true, nothing chosen: undefined, not a crash and not a perfect score."""
    scores = metrics.multilabel_scores(np.zeros((2, 2)), np.zeros((2, 2)))
    assert all(np.isnan(value) for value in scores.values())


def test_perfect_distribution_scores_one() -> None:
    """Distributions are scored as they are; a link over them is the reference's fault (R2 ~0.1)."""
    truth = np.random.default_rng(0).dirichlet(np.full(8, 0.3), 500)
    assert metrics.distribution_scores(truth, truth) == {"r2": 1.0, "mae": 0.0, "rmse": 0.0}
    assert metrics.distribution_scores(losses.simplex(truth), truth)["r2"] < 0.2


def test_macro_accuracy_and_auroc_by_hand() -> None:
    """Recalls 1 and 1/2; the second class ranks two of its four pairs right, the first all mirrored ones."""
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], float)
    predicted = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]])
    scores = metrics.classification_scores(predicted, truth)
    assert scores["macro_accuracy"] == 0.75
    # pairs of (member, other): the class without members has none
    assert scores["macro_auroc"] == 0.75
    labels = metrics.multilabel_scores(predicted, truth)
    assert labels["macro_auroc"] == 0.75
    # of 4 positives x 8 negatives all but (0.6 < 0.7), (0.3 < 0.4), (0.3 < 0.7) rank right
    assert labels["micro_auroc"] == pytest.approx(29 / 32)

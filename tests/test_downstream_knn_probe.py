"""The k-NN probe against scikit-learn's, fold by fold."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from pretrain.downstream import knn_probe
from pretrain.downstream.folds import Folds, make_folds
from pretrain.downstream.knn_probe import predict_divisions
from pretrain.downstream.task_data import TaskData
from pretrain.downstream.tasks import Task


def as_data(features: np.ndarray, targets: np.ndarray) -> TaskData:
    """Task data on made places."""
    ids = np.array([f"p{i:04d}" for i in range(len(features))], object)
    lon = np.arange(len(features)) * 0.1
    return TaskData(ids, lon, lon * 0, features, np.asarray(targets, np.float32), {}, {})


def predict_neighbors(
    features: np.ndarray, targets: np.ndarray, *, divisions: list[np.ndarray], k: int, temperature: float
) -> list[np.ndarray]:
    """Predictions under some divisions with a given k."""
    task = Task("t", "d", ["a", "b"], "regression", k=k, temperature=temperature)
    places = np.arange(len(features))
    folds = [Folds("random", division, places, places, None) for division in divisions]
    results = predict_divisions(as_data(features, targets), folds, task, seed=0)[1]
    return [result.values for result in results]


def softmax_weights(distances: np.ndarray) -> np.ndarray:
    """Weights of cosine distances as the probe's, up to a factor per row."""
    return np.exp((1 - distances) / 0.07 - 1 / 0.07)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Features, class ids, two divisions into folds."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, 150)
    features = rng.normal(size=(4, 12))[ids] + rng.normal(size=(150, 12))
    return features.astype(np.float32), ids, [rng.integers(0, 5, 150), np.arange(150) % 3]


@pytest.mark.parametrize("block_bytes", [knn_probe.BLOCK_BYTES, 150 * 4 * 7])
def test_classes_equal_scikit_learn(data: tuple, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All folds of both divisions from one pass, in one block or many, equal one fit per fold."""
    monkeypatch.setattr(knn_probe, "BLOCK_BYTES", block_bytes)
    features, ids, divisions = data
    results = predict_neighbors(
        features, np.eye(4, dtype=np.float32)[ids], divisions=divisions, k=9, temperature=0.07
    )
    for division, result in zip(divisions, results, strict=True):
        for fold in np.unique(division):
            train, test = division != fold, division == fold
            oracle = KNeighborsClassifier(9, weights=softmax_weights, metric="cosine")
            oracle.fit(features[train], ids[train])
            # float32 similarities divided by 0.07
            np.testing.assert_allclose(result[test], oracle.predict_proba(features[test]), atol=1e-4)


def test_values_equal_scikit_learn(data: tuple) -> None:
    """Several regression targets in their own units."""
    features, _, divisions = data
    targets = np.random.default_rng(1).normal(10, 5, (150, 2)).astype(np.float32)
    result = predict_neighbors(features, targets, divisions=divisions[:1], k=5, temperature=0.07)[0]
    for fold in range(5):
        train, test = divisions[0] != fold, divisions[0] == fold
        oracle = KNeighborsRegressor(5, weights=softmax_weights, metric="cosine")
        oracle.fit(features[train], targets[train])
        np.testing.assert_allclose(result[test], oracle.predict(features[test]), rtol=1e-3)


def test_own_fold_never_votes() -> None:
    """Identical features within a fold: the label comes from the other fold all the same."""
    features = np.tile(np.array([[1.0, 0.0]], np.float32), (6, 1))
    division = np.array([0, 0, 0, 1, 1, 1])
    targets = division[:, None].astype(np.float32)
    result = predict_neighbors(features, targets, divisions=[division], k=50, temperature=0.07)[0]
    np.testing.assert_allclose(result, 1 - targets)


def test_distributions_stay_distributions() -> None:
    """Predictions are averages of distributions, no link is applied."""
    rng = np.random.default_rng(0)
    targets = rng.dirichlet(np.ones(8), 40).astype(np.float32)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    nearest = predict_neighbors(
        np.repeat(features, 2, axis=0),
        np.repeat(targets, 2, axis=0),
        divisions=[np.tile([0, 1], 40)],
        k=1,
        temperature=0.07,
    )[0]
    np.testing.assert_allclose(nearest, np.repeat(targets, 2, axis=0), rtol=1e-6)


def test_zero_vectors_and_bad_options() -> None:
    """A zero embedding gives finite predictions; temperature 0 is refused."""
    features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    division = np.array([0, 1, 1])
    result = predict_neighbors(
        features, np.ones((3, 1), np.float32), divisions=[division], k=2, temperature=0.07
    )[0]
    np.testing.assert_allclose(result, 1)
    with pytest.raises(ValueError, match="temperature > 0"):
        predict_neighbors(features, np.ones((3, 1)), divisions=[division], k=1, temperature=0)


def test_k_is_chosen_on_validation_rows(data: tuple) -> None:
    """Each fold's k is the best of scikit-learn's on its validation part; tested labels do not matter."""
    features, ids, _ = data
    targets = np.eye(4, dtype=np.float32)[ids]
    task = Task("t", "d", "y", "classification", classes=[0, 1, 2, 3], mode="fast")
    made = as_data(features, targets)
    random = make_folds(made.location_id, ids, lon=made.lon, lat=made.lat, n_folds=4, block_km=50, seed=0)[0]
    settings, (result,) = predict_divisions(made, [random], task, seed=5)
    assert settings["k"] == "chosen on validation data"
    for fold, fit in enumerate(result.fits):
        fit_rows, held = random.split_validation(fold, share=0.1, seed=5)
        scores = {}
        for k in knn_probe.CANDIDATES:
            oracle = KNeighborsClassifier(min(k, len(fit_rows)), weights=softmax_weights, metric="cosine")
            oracle.fit(features[fit_rows], ids[fit_rows])
            scores[k] = f1_score(ids[held], oracle.predict(features[held]), average="macro", zero_division=0)
        assert fit["validation_score"] == pytest.approx(max(scores.values()))
        assert fit["k"] == next(k for k in scores if scores[k] == max(scores.values()))
        train, test = random.train(fold), random.test(fold)
        oracle = KNeighborsClassifier(fit["k"], weights=softmax_weights, metric="cosine")
        oracle.fit(features[train], ids[train])
        np.testing.assert_allclose(result.values[test], oracle.predict_proba(features[test]), atol=1e-4)
    test = random.test(1)
    targets[test] = np.roll(targets[test], 1, axis=1)
    _, (changed,) = predict_divisions(as_data(features, targets), [random], task, seed=5)
    np.testing.assert_array_equal(changed.values[test], result.values[test])


def test_published_k() -> None:
    """`paper` takes the kind's k, and a task's own k stands in both modes."""
    features = np.random.default_rng(0).normal(size=(60, 4))
    places = np.arange(60)
    folds = [Folds("random", places % 3, places, places, None)]
    for mode, k, expected in (("paper", None, 10), ("paper", 20, 20), ("fast", 7, 7)):
        task = Task("t", "d", "y", "regression", mode=mode, k=k)
        settings, (result,) = predict_divisions(as_data(features, features[:, :1]), folds, task, seed=0)
        assert settings["k"] == expected
        assert {fit["k"] for fit in result.fits} == {expected}

"""Linear heads: optima and training against scikit-learn and torch, no leakage, hard targets."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from pretrain.downstream import full_batch, losses
from pretrain.downstream.folds import Folds, make_folds
from pretrain.downstream.linear_probe import (
    FIRST_PENALTY,
    MODES,
    PAPER,
    PENALTIES,
    _next_penalty,
    fit_paper,
    predict_fast,
    probe,
)
from pretrain.downstream.task_data import TaskData
from pretrain.downstream.tasks import Task, encode_targets


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower on several threads, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def clusters(n: int = 300, *, n_classes: int = 3, d: int = 8, seed: int = 0) -> tuple:
    """Overlapping Gaussian classes: features and ids."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, n_classes, n)
    features = rng.normal(size=(n_classes, d))[ids] + rng.normal(size=(n, d))
    return features.astype(np.float32), ids


def make_data(features: np.ndarray, values: np.ndarray, task: Task, *, seed: int = 0) -> tuple:
    """Task data on random places, and their folds."""
    rng = np.random.default_rng(seed)
    n = len(features)
    targets, _ = encode_targets({"y": values}, task)
    ids = np.array([f"p{i:04d}" for i in range(n)], object)
    lon, lat = 9 + rng.random(n), 45 + rng.random(n)
    data = TaskData(ids, lon, lat, features, targets, {"n_used": n}, {})
    folds = make_folds(ids, np.zeros(n), lon=lon, lat=lat, n_folds=4, block_km=20.0, seed=seed)
    return data, folds


def predict_fold(data: TaskData, division: Folds, task: Task, *, fold: int, seed: int) -> tuple:
    """Prediction and fit of one fold alone."""
    return MODES[task.mode](data, [(division, fold)], task, seed=seed)[0]


def make_task(kind: str, mode: str, **settings: object) -> Task:
    """A task of one kind and mode."""
    settings = {"dataset": "d", "target": "y", "kind": kind, "mode": mode, **settings}
    if kind == "classification":
        settings.setdefault("classes", [0, 1, 2])
    return Task.from_settings("t", settings)


def solve(
    features: np.ndarray, targets: np.ndarray, rows: list[np.ndarray], *, loss: Callable, penalty: float
) -> tuple[full_batch.Objective, full_batch.Fitted]:
    """Fit the parts `rows` together, far beyond the probe's tolerance."""
    objective = full_batch.Objective(
        full_batch.make_parts(torch.tensor(features, dtype=torch.float32), rows),
        torch.tensor(targets, dtype=torch.float32)[None],
        loss,
    )
    fitted = full_batch.minimize(
        objective,
        full_batch.Preconditioner(objective),
        start=torch.zeros(len(rows), features.shape[1] + 1, targets.shape[1]),
        penalties=torch.full((len(rows),), penalty, dtype=torch.float64),
        active=range(len(rows)),
        tolerance=1e-9,
    )
    return objective, fitted


def standardized(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Features of some rows in units of their own deviations."""
    return (features[rows] - features[rows].mean(axis=0)) / features[rows].std(axis=0)


@pytest.mark.parametrize("tile_bytes", [full_batch.TILE_BYTES, 1])
def test_full_batch_optimum_is_scikit_learns(tile_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts fitted side by side, in one tile or more: each has the weights of its own fit (C = 1 / (n · penalty))."""
    monkeypatch.setattr(full_batch, "TILE_BYTES", tile_bytes)
    features, ids = clusters()
    parts = [np.arange(0, 200), np.arange(80, 300)]
    _, fitted = solve(features, np.eye(3)[ids], parts, loss=losses.cross_entropy, penalty=0.01)
    for rows, weights in zip(parts, fitted.weights.numpy(), strict=True):
        oracle = LogisticRegression(C=1 / (len(rows) * 0.01), tol=1e-10, max_iter=5000)
        oracle.fit(standardized(features, rows).astype(float), ids[rows])
        # float32; the bias is free up to a constant over classes
        np.testing.assert_allclose(weights[:-1].T, oracle.coef_, atol=2e-3)
        bias = weights[-1] - weights[-1].mean()
        np.testing.assert_allclose(bias, oracle.intercept_ - oracle.intercept_.mean(), atol=2e-3)


def test_full_batch_regression_is_ridge() -> None:
    """Mean squared error + penalty / 2 · w² is ridge regression with alpha = n · penalty / 2."""
    features, _ = clusters()
    values = features @ np.arange(8.0)[:, None] + 3
    rows = np.arange(300)
    _, fitted = solve(features, values, [rows], loss=losses.squared_error, penalty=0.1)
    oracle = Ridge(alpha=300 * 0.1 / 2, tol=1e-12).fit(standardized(features, rows).astype(float), values)
    np.testing.assert_allclose(fitted.weights[0, :-1].T, oracle.coef_.reshape(1, -1), rtol=1e-3)
    np.testing.assert_allclose(fitted.weights[0, -1], oracle.intercept_, rtol=1e-3)


def test_features_of_any_scale_give_the_same_head() -> None:
    """Standardization by the part's own rows; a constant feature is harmless."""
    features, ids = clusters()
    rows, targets = np.arange(250), np.eye(3)[ids]
    other = np.column_stack([features * np.arange(1, 9) + 5, np.full(300, 2.0)])
    predicted = []
    for matrix in (features, other):
        matrix = full_batch.shift_and_scale(matrix, device="cpu").numpy()
        objective, fitted = solve(matrix, targets, [rows], loss=losses.cross_entropy, penalty=0.01)
        predicted.append(objective.logits(fitted.weights[0], 0, torch.arange(250, 300)).numpy())
    np.testing.assert_allclose(*predicted, atol=5e-3)


def test_units_silent_in_training_do_not_drown_the_others() -> None:
    """Features that are constant in training and differ in tested rows say nothing: rounding must not give them a scale."""
    features, ids = clusters(150)
    task = make_task("classification", "fast")
    data, (division, _) = make_data(features, ids, task)
    rng = np.random.default_rng(0)
    silent = np.tile(rng.random(60).astype(np.float32), (len(ids), 1))
    test = division.test(0)
    silent[rng.choice(test, 60), np.arange(60)] += 1
    (before, _) = predict_fold(data, division, task, fold=0, seed=1)
    more = replace(data, features=np.concatenate([features, silent], axis=1))
    (after, _) = predict_fold(more, division, task, fold=0, seed=1)
    np.testing.assert_allclose(after, before, atol=0.02)


def test_fewer_rows_than_features_reach_the_optimum_soon() -> None:
    """Held-out rows add directions of their own then: the fit is ridge's all the same, and takes no hundreds of passes."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(48, 300)).astype(np.float32)
    target = features[:, :3].sum(axis=1) + rng.normal(size=48)
    task = make_task("regression", "fast")
    data, (division, _) = make_data(features, target, task)
    predicted, fit = predict_fold(data, division, task, fold=0, seed=1)
    train, test = division.train(0), division.test(0)
    scale = features[train].std(axis=0)
    ridge = Ridge(alpha=fit["penalty"] * len(train) / 2).fit(features[train] / scale, target[train])
    np.testing.assert_allclose(predicted[:, 0], ridge.predict(features[test] / scale), atol=0.05)
    assert fit["n_evaluations"] < 100


def test_default_tolerance_predicts_as_the_optimum() -> None:
    """What `fast` stops at gives the classes of the converged solution, but for a few near ties."""
    features, ids = clusters(600)
    task = make_task("classification", "fast")
    data, (random, _) = make_data(features, ids, task)
    (quick, fit), *_ = predict_fast(data, [(random, 0)], task, seed=0)
    rows = random.train(0)
    oracle = LogisticRegression(C=1 / (len(rows) * fit["penalty"]), tol=1e-8, max_iter=5000)
    center, scale = features[rows].mean(axis=0), features[rows].std(axis=0)
    oracle.fit(((features - center) / scale)[rows], ids[rows])
    exact = oracle.predict(((features - center) / scale)[random.test(0)])
    assert np.mean(quick.argmax(axis=1) != exact) < 0.01


def test_penalty_is_chosen_on_validation_rows() -> None:
    """Noise targets choose a strong penalty; an exact relation a weak one."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(400, 100)).astype(np.float32)
    task = make_task("regression", "fast")
    for values, bound in ((rng.normal(size=400), (1, 1000)), (features @ rng.normal(size=100), (1e-5, 1e-2))):
        data, (random, _) = make_data(features, values, task)
        _, fit = predict_fast(data, [(random, 1)], task, seed=0)[0]
        assert bound[0] <= fit["penalty"] <= bound[1]


@pytest.mark.parametrize(("try_all", "expected"), [(False, 0.03), (True, 300)])
def test_a_loss_of_two_minima_is_searched_through_where_few_rows_tell_it(
    try_all: bool, expected: float
) -> None:
    values = dict.fromkeys(PENALTIES, 3.0) | {0.1: 2.5, 0.03: 2.0, 300: 1.0}
    tried = {FIRST_PENALTY: values[FIRST_PENALTY]}
    while (penalty := _next_penalty(tried, try_all=try_all)) is not None:
        tried[penalty] = values[penalty]
    assert min(tried, key=tried.get) == expected
    assert tried.keys() == values.keys() or not try_all


def plain_torch_training(
    features: np.ndarray, ids: np.ndarray, held: tuple, *, seed: int
) -> tuple[np.ndarray, list[float]]:
    """Straightforward loop: torch's loss and autograd, best weights by validation loss."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(features.shape[1], 3)
    bound = features.shape[1] ** -0.5
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    x, y = torch.tensor(features), torch.tensor(ids)
    history, best = [], None
    for _ in range(1000):
        for rows in torch.randperm(len(x), generator=generator).split(256):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            value = torch.nn.functional.cross_entropy(head(torch.tensor(held[0])), torch.tensor(held[1]))
        history.append(value.item())
        if history[-1] == min(history):
            best = torch.cat([head.weight.T, head.bias[None]]).detach().numpy().copy()
        if len(history) - 1 - int(np.argmin(history)) >= 10:
            break
    return best, history


def test_paper_mode_is_the_plain_loop_with_best_weights() -> None:
    """Same trajectory as torch's own loss; stops 10 epochs after the best, and returns the best."""
    features, ids = clusters(400, d=200)
    features += 20 * np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    held = features[300:], ids[300:]
    expected, history = plain_torch_training(features[:300], ids[:300], held, seed=5)
    weights, fit = fit_paper(
        features[:300],
        np.eye(3, dtype=np.float32)[ids[:300]],
        held=(held[0], np.eye(3, dtype=np.float32)[held[1]]),
        loss=losses.cross_entropy,
        seed=5,
    )
    assert fit["best_epoch"] == int(np.argmin(history)) + 1
    assert fit["n_epochs"] == len(history) == fit["best_epoch"] + 10 < 1000
    assert fit["validation_loss"] == pytest.approx(min(history), rel=1e-5)
    # float32, some hundred steps
    np.testing.assert_allclose(weights, expected, atol=1e-4)


def test_paper_numbers() -> None:
    """The published configuration."""
    assert PAPER == {
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "batch_size": 256,
        "max_epochs": 1000,
        "patience": 10,
    }


@pytest.mark.parametrize("mode", ["fast", "paper"])
def test_tested_labels_do_not_matter(mode: str) -> None:
    """Predictions of a fold stay the same when its labels and other rows' features of it change."""
    features, ids = clusters(200)
    task = make_task("classification", mode)
    data, (random, _) = make_data(features, ids, task)
    test = random.test(1)
    before, _ = predict_fold(data, random, task, fold=1, seed=0)
    changed = data.targets.copy()
    changed[test] = np.roll(changed[test], 1, axis=1)
    scrambled = TaskData(data.location_id, data.lon, data.lat, features, changed, data.counts, {})
    after, _ = predict_fold(scrambled, random, task, fold=1, seed=0)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("mode", ["fast", "paper"])
def test_folds_are_independent(mode: str) -> None:
    """A fold gives the same prediction alone as after the others: nothing is warm-started."""
    features, ids = clusters(120)
    task = make_task("classification", mode)
    data, folds = make_data(features, ids, task)
    together = probe(data, folds, task, 7)[1]
    for division, predicted in zip(folds, together, strict=True):
        alone, _ = predict_fold(data, division, task, fold=2, seed=7)
        # products of other widths round otherwise
        np.testing.assert_allclose(predicted.values[division.test(2)], alone, atol=1e-5)


def test_noise_labels_score_at_chance() -> None:
    """Wide features and random labels: leaked labels would show as accuracy above chance."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 200)).astype(np.float32)
    ids = rng.integers(0, 2, 400)
    task = make_task("classification", "fast", classes=[0, 1])
    data, folds = make_data(features, ids, task)
    for predicted in probe(data, folds, task, 0)[1]:
        accuracy = np.mean(predicted.values.argmax(axis=1) == ids)
        assert abs(accuracy - 0.5) < 0.1  # 4 standard errors of 400 draws


def test_regression_in_original_units() -> None:
    """A target of mean 300 and spread 5 is predicted in its own unit though learned as z-scores."""
    features, _ = clusters(300)
    values = (300 + 5 * features[:, :1] + features[:, 1:2])[:, 0]
    task = make_task("regression", "fast")
    data, folds = make_data(features, values, task)
    for predicted in probe(data, folds, task, 0)[1]:
        # a tenth of the spread: the solver stops when the objective falls by less than 1e-4
        np.testing.assert_allclose(predicted.values[:, 0], values, atol=0.5)


@pytest.mark.parametrize("mode", ["fast", "paper"])
def test_constant_target_is_predicted_as_it_is(mode: str) -> None:
    """No division by a spread of zero."""
    features, _ = clusters(60)
    task = make_task("regression", mode)
    data, (random, _) = make_data(features, np.full(60, 7.5), task)
    predicted, _ = predict_fold(data, random, task, fold=0, seed=0)
    assert np.isfinite(predicted).all()
    if mode == "fast":  # at its learning rate the paper mode has not forgotten its initial weights
        np.testing.assert_allclose(predicted, 7.5, atol=1e-3)


@pytest.mark.parametrize("kind", ["multilabel", "distribution"])
@pytest.mark.parametrize("mode", ["fast", "paper"])
def test_other_kinds_predict_in_their_own_space(kind: str, mode: str) -> None:
    """Probabilities, and distributions that sum to 1; a label without positives stays near 0."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 6)).astype(np.float32)
    task = make_task(kind, mode, target=["a", "b", "c"])
    scores = np.column_stack([features[:, 0], features[:, 1], np.full(200, -9)])
    columns = (scores > 0).astype(float) if kind == "multilabel" else losses.simplex(scores)
    targets, _ = encode_targets(dict(zip("abc", columns.T, strict=True)), task)
    ids = np.array([f"p{i:04d}" for i in range(200)], object)
    place = np.arange(200)
    folds = Folds("random", place % 4, place, place, None)
    data = TaskData(ids, place, place, features, targets, {}, {})
    predicted, _ = predict_fold(data, folds, task, fold=0, seed=0)
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    if mode == "fast":
        assert predicted[:, 2].max() < 0.2
    if kind == "distribution":
        np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-6)

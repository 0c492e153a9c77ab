"""Losses, links: values and gradients against torch's own, on numpy arrays and tensors."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrain.downstream import losses


def oracle_divergence(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """KL of normalized sigmoids from the targets, by autograd."""
    shares = torch.sigmoid(logits)
    shares = shares / shares.sum(1, keepdim=True)
    return functional.kl_div(shares.log(), targets, reduction="batchmean")


CASES = {
    "cross_entropy": (losses.cross_entropy, functional.cross_entropy, "one_hot"),
    "squared_error": (losses.squared_error, functional.mse_loss, "values"),
    "binary_cross_entropy": (
        losses.binary_cross_entropy,
        functional.multilabel_soft_margin_loss,
        "labels",
    ),
    "divergence": (losses.divergence, oracle_divergence, "shares"),
}


def make_targets(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Targets (7, 4) of one kind."""
    return {
        "one_hot": np.eye(4)[rng.integers(0, 4, 7)],
        "values": rng.normal(size=(7, 4)),
        "labels": rng.integers(0, 2, (7, 4)).astype(float),
        "shares": rng.dirichlet(np.ones(4), 7),
    }[kind]


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_autograd(name: str) -> None:
    """The analytic gradient is what torch derives from its own loss."""
    ours, theirs, kind = CASES[name]
    rng = np.random.default_rng(3)
    logits, targets = 3 * rng.normal(size=(7, 4)), make_targets(kind, rng)
    value, gradient = ours(logits, targets)
    tensor = torch.tensor(logits, requires_grad=True)
    expected = theirs(tensor, torch.tensor(targets))
    expected.backward()
    # Both are double precision: 1e-10 leaves room for the order of sums alone.
    assert value == pytest.approx(expected.item(), rel=1e-10)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_tensors_and_arrays_agree(name: str) -> None:
    """The one implementation serves both solvers."""
    ours, _, kind = CASES[name]
    rng = np.random.default_rng(4)
    logits, targets = rng.normal(size=(7, 4)), make_targets(kind, rng)
    value, gradient = ours(logits, targets)
    tensor_value, tensor_gradient = ours(torch.tensor(logits), torch.tensor(targets))
    assert isinstance(tensor_gradient, torch.Tensor)
    assert float(tensor_value) == pytest.approx(float(value), rel=1e-12)
    np.testing.assert_allclose(tensor_gradient.numpy(), gradient, atol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "divergence"])
def test_extreme_logits_stay_finite(name: str) -> None:
    """No overflow at logits of ±1000."""
    ours, _, kind = CASES[name]
    logits = np.array([[1000.0, -1000.0, 0.0, 500.0]])
    value, gradient = ours(logits, make_targets(kind, np.random.default_rng(0))[:1])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_links() -> None:
    """Softmax and simplex give distributions, sigmoid probabilities."""
    logits = np.array([[0.0, np.log(3.0)]])
    np.testing.assert_allclose(losses.softmax(logits), [[0.25, 0.75]])
    np.testing.assert_allclose(losses.sigmoid(logits), [[0.5, 0.75]])
    np.testing.assert_allclose(losses.simplex(logits), [[0.4, 0.6]])
    assert losses.identity(logits) is logits


def test_weight_of_positives_is_torch_s() -> None:
    """Value and gradient are those of BCEWithLogitsLoss with pos_weight."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(5, 3)) * 4, requires_grad=True)
    targets = torch.tensor(rng.integers(0, 2, (5, 3)), dtype=torch.float64)
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=torch.full((3,), 12.0, dtype=torch.float64))(
        logits, targets
    )
    expected.backward()
    value, gradient = losses.binary_cross_entropy(logits.detach().numpy(), targets.numpy(), pos_weight=12.0)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-12)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_distributions_of_far_logits_are_finite() -> None:
    """All sigmoids of a row may underflow: shares are then those of the logits' differences."""
    logits = np.array([[-900.0, -900.0, -905.0], [800.0, -800.0, 0.0]])
    shares = losses.simplex(logits)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares[0], losses.softmax(logits[:1])[0])
    value, gradient = losses.divergence(logits, np.full((2, 3), 1 / 3))
    assert np.isfinite(value) and np.isfinite(gradient).all()

"""Links and losses of task kinds, each loss with its gradient by the logits.

Written once for numpy arrays (the full-batch solver) and torch tensors (the minibatch one).
"""

from typing import Any

import numpy as np


def sigmoid(logits: Any) -> Any:
    """Turn logits into probabilities, without overflow."""
    return (_module(logits).tanh(logits / 2) + 1) / 2


def _module(array: Any) -> Any:
    """Give the module of an array's functions: torch for a tensor, else numpy."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def softmax(logits: Any) -> Any:
    """Turn logits (n, classes) into probabilities."""
    module = _module(logits)
    powers = module.exp(logits - module.amax(logits, axis=1, keepdims=True))
    return powers / module.sum(powers, axis=1, keepdims=True)


def simplex(logits: Any) -> Any:
    """Turn logits (n, bins) into distributions: sigmoids divided by their sum."""
    return softmax(_log_sigmoid(logits))


def _log_sigmoid(logits: Any) -> Any:
    return -_module(logits).logaddexp(-logits, 0 * logits)


def identity(logits: Any) -> Any:
    """Leave a linear output as it is."""
    return logits


def cross_entropy(logits: Any, targets: Any) -> tuple[Any, Any]:
    """Give mean softmax cross-entropy against one-hot targets, and its gradient by the logits."""
    module = _module(logits)
    shifted = logits - module.amax(logits, axis=1, keepdims=True)
    log_sum = module.log(module.sum(module.exp(shifted), axis=1, keepdims=True))
    value = -module.sum(targets * (shifted - log_sum)) / len(logits)
    return value, (softmax(logits) - targets) / len(logits)


def squared_error(outputs: Any, targets: Any) -> tuple[Any, Any]:
    """Give the mean squared error over rows and targets, and its gradient."""
    difference = outputs - targets
    size = difference.shape[0] * difference.shape[1]
    return _module(outputs).sum(difference**2) / size, 2 * difference / size


def binary_cross_entropy(logits: Any, targets: Any, *, pos_weight: float = 1.0) -> tuple[Any, Any]:
    """Give the mean over rows and labels (MultiLabelSoftMarginLoss), and its gradient.

    Parameters
    ----------
    pos_weight : weight of the positives' part (torch's BCEWithLogitsLoss)
    """
    module = _module(logits)
    size = logits.shape[0] * logits.shape[1]
    weight = 1 + (pos_weight - 1) * targets
    value = module.sum(weight * module.logaddexp(logits, 0 * logits) - pos_weight * targets * logits) / size
    return value, (weight * sigmoid(logits) - pos_weight * targets) / size


def divergence(logits: Any, targets: Any) -> tuple[Any, Any]:
    """Give the mean Kullback-Leibler divergence of `simplex` from the targets, and its gradient."""
    module = _module(logits)
    log_share = _log_sigmoid(logits)
    largest = module.amax(log_share, axis=1, keepdims=True)
    log_sum = largest + module.log(module.sum(module.exp(log_share - largest), axis=1, keepdims=True))
    log_target = module.log(module.clip(targets, 1e-12, None))
    value = module.sum(targets * (log_target - log_share + log_sum)) / len(logits)
    gradient = (1 - sigmoid(logits)) * (simplex(logits) - targets) / len(logits)
    return value, gradient

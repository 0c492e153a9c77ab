"""Linear heads of many training parts at once: full-batch L-BFGS, preconditioned by second moments.

All parts (the folds of a division) share one matrix of features: a pass over its rows multiplies
them with the heads of every part side by side, and a part's gradient takes its own rows only. Each
part has its own weights, line search and end, so that nothing of one part reaches another.

The objective is mean loss + penalty / 2 × squared weights over standardized features, the bias free.
Directions are those of L-BFGS (Liu and Nocedal 1989) whose first guess of the inverse Hessian is
(curvature × second moments of the part's features + penalty)^-1, as in the bound of Böhning (1992).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pretrain.downstream.tasks import Loss

MEMORY = 8
"""Pairs of steps and gradient changes that L-BFGS keeps."""
MAX_ITERATIONS = 200
TILE_BYTES = 32 * 2**20
"""Features of one pass of a product: what a cache may hold."""
MOMENT_ROWS = 4
"""Rows per feature that second moments are estimated from: their error slows convergence, never moves the optimum."""
RANK = 256
"""Eigenvectors of second moments that a preconditioner keeps where features are more than twice as many."""
RIDGE = 1e-3
"""Least mean of the other eigenvalues (of standardized features, whose mean is 1): it covers rounding."""
CONSTANT = 1e-4
"""Variance in a part, of that in all rows, up to which a feature counts as constant there: it holds the rounding of sums,
and a unit that is nearly silent in training but not in the rows tested does not drown all others."""
ARMIJO = 1e-4
"""Share of the predicted decrease that a step must reach (Nocedal and Wright 2006)."""


@dataclass(frozen=True)
class Parts:
    """Training parts over the rows of one feature matrix."""

    features: Tensor
    """(n, d) float32, any shift and scale near 1 (see `shift_and_scale`)."""
    rows: Sequence[Tensor]
    """Per part the rows to fit, int64, ascending."""
    center: Tensor
    """(parts, d): mean of each part's rows."""
    scale: Tensor
    """(parts, d): standard deviation of each part's rows, 1 where a feature is (nearly) constant."""


@dataclass(frozen=True)
class Fitted:
    """Heads of all parts."""

    weights: Tensor
    """(parts, d + 1, outputs) for standardized features, the bias last."""
    n_evaluations: np.ndarray
    """(parts,) passes over the rows."""


def shift_and_scale(features: np.ndarray, *, device: str) -> Tensor:
    """Give a float32 copy whose columns have mean 0 and deviation 1 over all rows.

    It only keeps float32 arithmetic exact: heads are fitted to features standardized by their own
    part, whatever the columns' common shift and scale.
    """
    values = torch.tensor(features, dtype=torch.float32, device=device)
    deviation, mean = torch.std_mean(values, dim=0, correction=0)
    values -= mean
    values /= torch.where(deviation > 0, deviation, 1)
    return values


def make_parts(features: Tensor, rows: Sequence[np.ndarray]) -> Parts:
    """Standardize each part by its own rows, without copying features."""
    index = [torch.as_tensor(np.sort(part), device=features.device) for part in rows]
    is_in = torch.zeros(len(index), len(features), device=features.device)
    for part, chosen in enumerate(index):
        is_in[part, chosen] = 1 / len(chosen)
    mean = torch.zeros(len(index), features.shape[1], device=features.device)
    square = torch.zeros_like(mean)
    for tile in _tiles(features):
        mean += is_in[:, tile] @ features[tile]
        square += is_in[:, tile] @ features[tile].square()
    variance = (square - mean.square()).clamp(min=0)
    scale = torch.where(variance > CONSTANT, variance.sqrt(), 1)
    return Parts(features, index, mean, scale)


def _tiles(features: Tensor) -> list[slice]:
    step = max(256, TILE_BYTES // (4 * features.shape[1]))
    return [slice(first, first + step) for first in range(0, len(features), step)]


class Objective:
    """Value and gradient of the objective of every part, by one pass over the features.

    Parameters
    ----------
    parts : rows and standardization
    targets : (parts or 1, n, outputs) float32; parts may share them
    loss : see `pretrain.downstream.losses`
    """

    def __init__(self, parts: Parts, targets: Tensor, loss: Loss) -> None:
        self.parts, self.targets, self.loss = parts, targets, loss
        self.tiles = _tiles(parts.features)
        edges = torch.tensor([tile.start for tile in self.tiles] + [len(parts.features)])
        self.bounds = [torch.searchsorted(rows.cpu(), edges).tolist() for rows in parts.rows]
        """Per part, where the rows of each tile begin among its own."""

    def goal(self, part: int) -> Tensor:
        """Targets (n, outputs) of a part."""
        return self.targets[part if len(self.targets) > 1 else 0]

    def logits(self, weights: Tensor, part: int, rows: Tensor) -> Tensor:
        """Apply a part's head (d + 1, outputs) to some rows."""
        slope, bias = self._raw(weights[None], [part])
        return self.parts.features[rows] @ slope + bias

    def _raw(self, weights: Tensor, active: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Turn weights for standardized features into those for the matrix: (d, active × outputs) and biases."""
        slope = weights[:, :-1] / self.parts.scale[active, :, None]
        bias = weights[:, -1] - torch.einsum("fd,fdk->fk", self.parts.center[active], slope)
        return slope.permute(1, 0, 2).flatten(1).contiguous(), bias

    def __call__(self, weights: Tensor, penalties: Tensor, active: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Evaluate the parts `active` (their weights (active, d + 1, outputs)) in float32, sums in float64."""
        features = self.parts.features
        n_active, n_outputs = len(active), weights.shape[2]
        slope, bias = self._raw(weights, active)
        value = torch.zeros(n_active, dtype=torch.float64)
        by_slope = torch.zeros_like(slope)
        total = torch.zeros(n_active, n_outputs, device=features.device)
        for number, tile in enumerate(self.tiles):
            logits = (features[tile] @ slope).unflatten(1, (n_active, n_outputs))
            gradient = torch.zeros_like(logits)
            for i, part in enumerate(active):
                first, last = self.bounds[part][number : number + 2]
                if first == last:
                    continue
                here = self.parts.rows[part][first:last] - tile.start
                mean, by_logits = self.loss(logits[here, i] + bias[i], self.goal(part)[tile][here])
                share = (last - first) / len(self.parts.rows[part])
                value[i] += float(mean) * share
                gradient[here, i] = by_logits * share
            total += gradient.sum(dim=0)
            by_slope.addmm_(features[tile].T, gradient.flatten(1))
        by_slope = by_slope.unflatten(1, (n_active, n_outputs)).permute(1, 0, 2)
        result = torch.empty_like(weights)
        centered = by_slope - self.parts.center[active, :, None] * total[:, None]
        strength = penalties[:, None, None].to(weights)
        result[:, :-1] = centered / self.parts.scale[active, :, None] + strength * weights[:, :-1]
        result[:, -1] = total
        squares = weights[:, :-1].double().square().sum(dim=(1, 2)).cpu()
        return value + penalties / 2 * squares, result


class Preconditioner:
    """Approximate inverse Hessians of all parts, for any strength of penalty.

    A part's second moments are described by their leading eigenvectors, and by one number for the rest.
    """

    def __init__(self, objective: Objective) -> None:
        parts = objective.parts
        n, d = parts.features.shape
        sample = torch.arange(0, n, max(1, n // (MOMENT_ROWS * d)), device=parts.features.device)
        self.curvature = _estimate_curvature(objective)
        total = _moments(parts.features[sample])
        found = []
        for i, rows in enumerate(parts.rows):
            left_out = sample[torch.isin(sample, rows, invert=True)]
            n_rows = max(len(sample) - len(left_out), 1)
            square, mean = (
                (a - b) / n_rows for a, b in zip(total, _moments(parts.features[left_out]), strict=True)
            )
            covariance = (square - torch.outer(mean, mean)) / torch.outer(parts.scale[i], parts.scale[i])
            found.append(_leading(covariance))
        self.vectors, self.values, self.rest = (torch.stack(items) for items in zip(*found, strict=True))

    def apply(self, gradient: Tensor, penalties: Tensor, active: Sequence[int]) -> Tensor:
        """Multiply (active, d + 1, outputs) by the approximate inverse Hessians."""
        strength = penalties.to(gradient)[:, None]
        curvature = self.curvature[active, None]
        vectors = self.vectors[active]
        rest = 1 / (curvature * self.rest[active, None] + strength)
        leading = 1 / (curvature * self.values[active] + strength) - rest
        slope = gradient[:, :-1]
        along = leading[..., None] * (vectors.transpose(1, 2) @ slope)
        result = torch.empty_like(gradient)
        result[:, :-1] = torch.baddbmm(rest[..., None] * slope, vectors, along)
        result[:, -1] = gradient[:, -1] / curvature
        return result


def _leading(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give leading eigenvectors and eigenvalues of a covariance, and the mean of the other eigenvalues.

    All of them where the matrix is small, else by a randomized range finder with one power step (Halko,
    Martinsson and Tropp 2011).
    """
    size = len(matrix)
    basis = torch.eye(size, device=matrix.device)
    if size > 2 * RANK:
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(size, RANK, generator=generator).to(matrix)
        for _ in range(2):
            basis = torch.linalg.qr(matrix @ basis).Q
    values, vectors = torch.linalg.eigh(basis.T @ matrix @ basis)
    values = values.clamp(min=0)
    rest = (matrix.trace() - values.sum()).clamp(min=0) / max(size - len(values), 1)
    return basis @ vectors, values, rest.clamp(min=RIDGE)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Give the sums of products and of values."""
    return rows.T @ rows, rows.sum(dim=0)


def _estimate_curvature(objective: Objective) -> Tensor:
    """Give each part's mean second derivative of the loss by a logit at weights 0, by a finite difference."""
    step = 1e-2
    result = []
    for part, rows in enumerate(objective.parts.rows):
        targets = objective.goal(part)[rows]
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, targets.shape, generator=generator).to(targets) * 2 - 1
        change = objective.loss(step * signs, targets)[1] - objective.loss(-step * signs, targets)[1]
        result.append((change * signs).sum() / (2 * step) / targets.shape[1])
    return torch.stack(result)


def minimize(
    objective: Objective,
    preconditioner: Preconditioner,
    *,
    start: Tensor,
    penalties: Tensor,
    active: Sequence[int],
    tolerance: float,
    max_iterations: int = MAX_ITERATIONS,
) -> Fitted:
    """Minimize the objective of the active parts together, each to its own end.

    Parameters
    ----------
    start : (active, d + 1, outputs)
    penalties : (active,) float64
    tolerance : a part ends when its step is expected to lower the objective by less than this share, or when no step lowers it

    Returns
    -------
    Fitted of the active parts
    """
    weights = start.clone()
    going = list(range(len(active)))
    n_evaluations = np.zeros(len(active), int)

    def evaluate(at: Tensor, which: Sequence[int]) -> tuple[Tensor, Tensor]:
        n_evaluations[which] += 1
        return objective(at, penalties[which], [active[i] for i in which])

    value, gradient = evaluate(weights, going)
    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(max_iterations):
        apply = partial(preconditioner.apply, penalties=penalties[going], active=[active[i] for i in going])
        direction = -_two_loops(gradient, history, apply)
        slope = _dot(direction, gradient)
        ends = -slope / 2 <= tolerance * value.abs().clamp(min=1e-12)
        if ends.all():
            break
        keep = torch.nonzero(~ends)[:, 0]
        if len(keep) < len(going):
            going = [going[i] for i in keep]
            value, gradient, direction, slope = value[keep], gradient[keep], direction[keep], slope[keep]
            history = [(s[keep], y[keep]) for s, y in history]
        length = torch.ones(len(going), dtype=torch.float64)
        new_value, new_gradient = evaluate(weights[going] + direction, going)
        while True:
            # A value that overflowed is no decrease either.
            poor = torch.nonzero(~(new_value <= value + ARMIJO * length * slope))[:, 0]
            poor = poor[length[poor] > 1e-6]
            if not len(poor):
                break
            fall = 2 * (new_value[poor] - value[poor] - length[poor] * slope[poor])
            guess = torch.nan_to_num(-slope[poor] * length[poor].square() / fall)
            length[poor] = torch.minimum(torch.maximum(guess, 0.1 * length[poor]), 0.5 * length[poor])
            which = [going[i] for i in poor]
            shorter = weights[which] + length[poor, None, None].to(weights) * direction[poor]
            new_value[poor], new_gradient[poor] = evaluate(shorter, which)
        # A part that no step lowers ends: with more features than rows a loss near 0 drowns in float32's rounding.
        lower = torch.nonzero(new_value <= value + ARMIJO * length * slope)[:, 0]
        if not len(lower):
            break
        if len(lower) < len(going):
            going = [going[i] for i in lower]
            value, gradient, direction, length = (
                value[lower],
                gradient[lower],
                direction[lower],
                length[lower],
            )
            new_value, new_gradient = new_value[lower], new_gradient[lower]
            history = [(s[lower], y[lower]) for s, y in history]
        step = length[:, None, None].to(weights) * direction
        weights[going] += step
        history = [*history, (step, new_gradient - gradient)][-MEMORY:]
        value, gradient = new_value, new_gradient
    return Fitted(weights, n_evaluations)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products of each part."""
    return (a * b).sum(dim=(1, 2), dtype=torch.float64).cpu()


def _two_loops(
    gradient: Tensor, history: Sequence[tuple[Tensor, Tensor]], apply: Callable[[Tensor], Tensor]
) -> Tensor:
    """Multiply by the L-BFGS estimate of the inverse Hessian (Nocedal and Wright 2006, algorithm 7.4)."""
    result = gradient.clone()
    kept = []
    for step, change in reversed(history):
        curvature = _dot(step, change)
        inverse = torch.where(curvature > 0, 1 / curvature.clamp(min=1e-300), 0)
        share = inverse * _dot(step, result)
        result -= share[:, None, None].to(result) * change
        kept.append((step, change, inverse, share))
    result = apply(result)
    for step, change, inverse, share in reversed(kept):
        result += (share - inverse * _dot(change, result))[:, None, None].to(result) * step
    return result

"""The processes of a training run: who am I, gather, average.

Without torchrun (tests, one process) every function works on the one process there is.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn


def world() -> tuple[int, int]:
    """Give this process's rank and the number of ranks."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather(tensor: Tensor, dim: int = 0) -> Tensor:
    """Join a tensor of all ranks along `dim`, in rank order; no gradient flows through."""
    _, n_ranks = world()
    tensor = tensor.detach().contiguous()
    if n_ranks == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(n_ranks)]
    distributed.all_gather(parts, tensor)
    return torch.cat(parts, dim=dim)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return gather(tensor.unsqueeze(0))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        rank, n_ranks = world()
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        if n_ranks > 1:
            distributed.all_reduce(gradient)
        return gradient[rank]


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Stack a tensor of all ranks along a new first dimension.

    The gradient a rank's tensor gets is the sum over what all ranks' losses owe to it.
    """
    return _GatherWithGradient.apply(tensor)


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Average a tensor over the ranks."""
    _, n_ranks = world()
    if n_ranks == 1:
        return tensor
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total / n_ranks


@torch.no_grad()
def average_statistics(modules: Iterable[nn.Module]) -> None:
    """Give all ranks the mean of their batch-normalization running statistics.

    Ranks see different groups, so their statistics drift apart; as these move linearly, the mean is
    what one process with all groups would have.
    """
    for module in modules:
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(mean_over_ranks(module.running_mean))
            module.running_var.copy_(mean_over_ranks(module.running_var))

"""Contrast of queries with keys of a slowly following encoder and queues of earlier keys.

Common to MoCo and SeCo, which differ in their table of spaces: which key view is a query's positive
in each embedding space, and which key views of the batch are further negatives there. In every
space: logits = [query · positive | query · negatives] / temperature, cross-entropy with the positive
as target; losses are summed over spaces.

Negatives are the queue and the listed key views of the whole global batch, whatever the number of
ranks; the keys of a batch enter the queue after its step, in sample order, so all ranks hold the same queue.

References
----------
He et al., Momentum contrast (2020); Mañas et al., Seasonal contrast (2021). Alignment and
uniformity: Wang and Isola (2020), with squared distances and t = 2.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.data import Batch, send
from pretrain.distribution import gather, world
from pretrain.encoders import Encoder
from pretrain.objectives.base import Objective
from pretrain.randomness import STREAM_SHUFFLE, uniforms
from pretrain.recipes import Options


@dataclass(frozen=True)
class Space:
    """One embedding space; key views are counted from 0 (`views` without the query's)."""

    name: str
    positive: int
    negatives: tuple[int, ...] = ()
    """Key views whose whole batch is contrasted with, besides the queue."""

    @property
    def used(self) -> tuple[int, ...]:
        """Key views that are projected into this space, the positive first."""
        return (self.positive, *self.negatives)


class MomentumContrast(Objective):
    """Queries against keys, in one or several spaces. The first view is the query's."""

    spaces: ClassVar[tuple[Space, ...]]

    def __init__(
        self,
        encoder: Encoder,
        *,
        queue_size: int,
        temperature: float,
        key_momentum: float,
        projection_size: int,
        seed: int,
        shuffle_keys: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.key_momentum = key_momentum
        self.shuffle_keys = shuffle_keys
        self.seed = seed
        self.encoder = encoder
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(
                _projection_head(encoder.feature_size, projection_size) for _ in self.spaces
            )
        self.key_encoder = deepcopy(encoder).requires_grad_(False)
        self.key_heads = deepcopy(self.heads).requires_grad_(False)
        queues = torch.randn(len(self.spaces), projection_size, queue_size, generator=generator)
        self.register_buffer("queues", functional.normalize(queues, dim=1))
        self.queue_position = 0
        self._keys: dict[tuple[int, int], Tensor] = {}

    @classmethod
    def build(cls, encoder: Encoder, options: Options) -> Self:
        """Build the objective of a training run."""
        return cls(
            encoder,
            queue_size=options.queue_size,
            temperature=options.temperature,
            key_momentum=options.key_momentum,
            projection_size=options.projection_size,
            shuffle_keys=options.bn_shuffle,
            seed=options.seed,
        )

    @torch.no_grad()
    def before_step(self) -> None:
        """Let the key encoder and heads follow: key ← m · key + (1 − m) · query, parameters only."""
        for own, key in ((self.encoder, self.key_encoder), (self.heads, self.key_heads)):
            torch._foreach_lerp_(list(key.parameters()), list(own.parameters()), 1 - self.key_momentum)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the batch's positive keys of each space into its queue."""
        new = torch.stack([self._keys[i, space.positive] for i, space in enumerate(self.spaces)])
        n, size = new.shape[1], self.queues.shape[2]
        self.queues[:, :, self.queue_position : self.queue_position + n] = new.transpose(1, 2)
        self.queue_position = (self.queue_position + n) % size
        self._keys = {}

    def get_extra_state(self) -> int:
        """Give the queues' position, which is kept off the device: reading it there would wait for it."""
        return self.queue_position

    def set_extra_state(self, state: int) -> None:
        """Take the queues' position."""
        self.queue_position = state

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the summed loss and, per space, loss, top-1, alignment, uniformity and spread."""
        if not self._keys:
            self.look_ahead((batch,))
        pooled = self.encoder(batch.views[0]).pooled
        queries = [unit_length(head(pooled)) for head in self.heads]
        with torch.autocast(pooled.device.type, enabled=False):  # logits and losses stay fp32
            results = self._compare(queries, batch)
        spread = unit_length(pooled.detach()).std(dim=0, correction=0).mean()
        results["feature_std"] = spread * pooled.shape[1] ** 0.5
        return results

    def _compare(self, queries: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of all spaces and what describes them."""
        n, device = len(queries[0]), queries[0].device
        own = send(batch.slots - batch.batch_slots.min(), device=device)
        first = int(batch.slots.min() - batch.batch_slots.min()) // (n * world()[1]) * (n * world()[1])
        together = slice(first, first + n * world()[1])
        all_queries = gather(torch.stack(queries), dim=1)
        target = torch.zeros(n, dtype=torch.int64, device=device)
        losses, results = [], {}
        for i, space in enumerate(self.spaces):
            positives = self._keys[i, space.positive]
            logits = self.logits(i, queries[i], positives[own], self._keys)
            losses.append(functional.cross_entropy(logits, target))
            results[f"loss_{space.name}"] = losses[-1].detach()
            results[f"top1_{space.name}"] = (logits.detach().argmax(dim=1) == 0).float().mean()
            described = measure(all_queries[i], positives[together])
            results |= {f"{name}_{space.name}": value for name, value in described.items()}
        return {"loss": torch.stack(losses).sum(), **results}

    def logits(
        self, i: int, queries: Tensor, positives: Tensor, keys: dict[tuple[int, int], Tensor]
    ) -> Tensor:
        """Give the logits of space `i` in fp32: the positive, the queue, then the batch's negatives.

        Parameters
        ----------
        i : number of the space
        queries, positives : (N, D), this rank's, of unit length
        keys : (space, key view) → (N of all ranks, D)
        """
        parts = [(queries * positives).sum(dim=1, keepdim=True), queries @ self.queues[i]]
        parts += [queries @ keys[i, j].T for j in self.spaces[i].negatives]
        return torch.cat(parts, dim=1) / self.temperature

    @torch.no_grad()
    def look_ahead(self, parts: Sequence[Batch]) -> None:
        """Project the key views of the whole batch: (space, key view) → (N of all ranks, D), by slot.

        With `shuffle_keys` samples are dealt to the batch-normalization groups in another order than
        the queries' (shuffling BN of MoCo), so that the groups' statistics do not give pairs away.
        """
        batch = parts[0]
        wanted = [(i, j) for i, space in enumerate(self.spaces) for j in space.used]
        views = [[part.views[1 + j] for part in parts] for j in range(len(self.views) - 1)]
        device = views[0][0].device
        by_slot = send(np.argsort(batch.batch_slots), device=device)
        order = by_slot
        if self.shuffle_keys:
            draws = uniforms(
                self.seed, epoch=batch.epoch, stream=STREAM_SHUFFLE, slots=np.sort(batch.batch_slots), n=1
            )[:, 0]
            dealt = np.argsort(draws, kind="stable")[batch.batch_slots - batch.batch_slots.min()]
            n = sum(len(part.slots) for part in parts)
            own = send(dealt[world()[0] * n : (world()[0] + 1) * n], device=device)
            views = [gather(torch.cat(view))[by_slot][own].chunk(len(parts)) for view in views]
            order = send(np.argsort(dealt), device=device)
        projected = []
        for part_views in zip(*views, strict=True):
            pooled = [self.key_encoder(view).pooled for view in part_views]
            projected.append(torch.stack([unit_length(self.key_heads[i](pooled[j])) for i, j in wanted]))
        gathered = gather(torch.cat(projected, dim=1), dim=1)[:, order]
        self._keys = dict(zip(wanted, gathered, strict=True))


def _projection_head(feature_size: int, projection_size: int) -> nn.Module:
    """Linear – ReLU – Linear without normalization, as published."""
    return nn.Sequential(
        nn.Linear(feature_size, feature_size), nn.ReLU(), nn.Linear(feature_size, projection_size)
    )


def unit_length(vectors: Tensor) -> Tensor:
    """Normalize vectors (N, D) in fp32, or in their own type if that is finer."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)


@torch.no_grad()
def measure(queries: Tensor, keys: Tensor) -> dict[str, Tensor]:
    """Measure a space by its queries and positive keys (N, D) of unit length.

    Returns
    -------
    alignment : mean squared distance of positive pairs (0: equal)
    uniformity : log of the mean of exp(−2 d²) over pairs of queries (0: all equal, −4: spread out)
    std : standard deviation of queries per dimension × √D (0: collapsed, 1: spread out)
    """
    distance = (2 - 2 * queries @ queries.T).clamp(min=0)
    n = len(queries)
    others = 1 - torch.eye(n, dtype=queries.dtype, device=queries.device)
    pairs = (torch.exp(-2 * distance) * others).sum() / max(n * (n - 1), 1)
    return {
        "alignment": (queries - keys).square().sum(dim=1).mean(),
        "uniformity": pairs.log() if n > 1 else pairs,
        "std": queries.std(dim=0, correction=0).mean() * queries.shape[1] ** 0.5,
    }

"""Objectives equal a slow, obvious version written from the specification."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pretrain.augment import make_views
from pretrain.data import PatchReader, to_images
from pretrain.encoders import Features, group_batch_norm
from pretrain.objectives import OBJECTIVES
from pretrain.objectives.contrast import measure
from pretrain.samples import select_samples
from tests.pretrain_world import make_world
from workflow_scripts.core import tables
from workflow_scripts.core.seasons import SEASONS

BATCH, QUEUE, STEPS, TEMPERATURE, RATE, MOMENTUM, DECAY = 6, 18, 50, 0.2, 0.03, 0.9, 1e-4


class TinyEncoder(nn.Module):
    feature_size = 10

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 10, 3, stride=2), nn.BatchNorm2d(10), nn.ReLU())

    def forward(self, images):
        maps = self.body(images)
        return Features(maps.mean(dim=(2, 3)), (maps,))


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Batches of a store in which every second location has two seasons only."""
    world = make_world(tmp_path_factory.mktemp("world"), n_locations=6, size_px=16)
    patches = tables.read_table(world / "patches.parquet", "patches")
    few = (patches["location"] % 2 == 1) & patches["season"].isin(["summer", "autumn"])
    patches.loc[few, "status"] = "missing"
    patches.loc[(patches["location"] == 1) & patches["season"].isin(["spring", "summer"]), "status"] = "ok"
    samples = select_samples(
        patches, tables.read_table(world / "weights.parquet", "weights"), seasons=SEASONS
    )
    reader = PatchReader(world / "patches.zarr", ("B04", "B08", "NDVI"))

    def read(step, objective):
        batch = reader.read_batch(
            samples, step, seed=4, epoch=0, n_seasons=objective.n_seasons, batch_size=BATCH, rank=0, n_ranks=1
        )
        images = to_images(batch, reader.plan).double()
        views = make_views(images, objective.views, seed=4, epoch=0, slots=batch.slots, crop_px=12)
        return batch, images, views

    return read


def build(name, **options):
    torch.manual_seed(0)
    encoder = TinyEncoder()
    group_batch_norm(encoder, 3)
    objective = OBJECTIVES[name](
        encoder,
        queue_size=QUEUE,
        temperature=TEMPERATURE,
        key_momentum=0.9,
        projection_size=5,
        seed=1,
        **options,
    )
    return objective.double().train()


SLOW_SPACES = {  # space -> (its positive key view, key views that are negatives)
    "seco": [(0, []), (1, [0, 2]), (2, [0, 1])],
    "moco": [(0, [])],
}


class Slow:
    """The specification in loops, one sample and one negative at a time."""

    def __init__(self, name, objective):
        self.spaces = SLOW_SPACES[name]
        self.encoder, self.key_encoder = deepcopy(objective.encoder), deepcopy(objective.key_encoder)
        self.heads = [deepcopy(head) for head in objective.heads]
        self.key_heads = [deepcopy(head) for head in objective.key_heads]
        self.queues = [
            [objective.queues[i, :, k].clone() for k in range(QUEUE)] for i in range(len(self.spaces))
        ]
        self.position = 0
        self.velocity = None

    def step(self, views):
        own = [*self.encoder.parameters(), *(p for head in self.heads for p in head.parameters())]
        keys = [*self.key_encoder.parameters(), *(p for head in self.key_heads for p in head.parameters())]
        with torch.no_grad():
            for key, parameter in zip(keys, own, strict=True):
                key.copy_(0.9 * key + 0.1 * parameter)
        v_q = self.encoder(views[0]).pooled
        with torch.no_grad():
            v_k = [self.key_encoder(view).pooled for view in views[1:]]
        losses, all_logits, positives = [], [], []
        for i, (positive, negatives) in enumerate(self.spaces):
            z_q = [z / z.norm() for z in self.heads[i](v_q)]
            with torch.no_grad():
                z_k = [[z / z.norm() for z in self.key_heads[i](v)] for v in v_k]
            sample_losses, rows = [], []
            for n in range(BATCH):
                logits = [z_q[n] @ z_k[positive][n]]
                logits += [z_q[n] @ key for key in self.queues[i]]
                logits += [z_q[n] @ z_k[j][m] for j in negatives for m in range(BATCH)]
                row = torch.stack(logits) / TEMPERATURE
                rows.append(row.detach())
                sample_losses.append(-row[0] + torch.log(sum(torch.exp(value) for value in row)))
            losses.append(sum(sample_losses) / BATCH)
            all_logits.append(torch.stack(rows))
            positives.append(z_k[positive])
        loss = sum(losses)
        gradients = torch.autograd.grad(loss, own)
        self.descend(own, gradients)
        for i, keys_of_space in enumerate(positives):
            for n, key in enumerate(keys_of_space):
                self.queues[i][(self.position + n) % QUEUE] = key
        self.position = (self.position + BATCH) % QUEUE
        return loss.item(), [value.item() for value in losses], all_logits

    def descend(self, parameters, gradients):
        decayed = [g + DECAY * p.detach() for p, g in zip(parameters, gradients, strict=True)]
        before = self.velocity or [torch.zeros_like(g) for g in decayed]
        self.velocity = [MOMENTUM * v + g for v, g in zip(before, decayed, strict=True)]
        with torch.no_grad():
            for p, v in zip(parameters, self.velocity, strict=True):
                p -= RATE * v


@pytest.mark.parametrize("name", ["seco", "moco"])
def test_fifty_steps_equal_the_slow_version(name, stream):
    objective = build(name)
    slow = Slow(name, objective)
    logits = {}
    fast_logits = objective.logits

    def remember(i, *arguments):
        logits[i] = fast_logits(i, *arguments)
        return logits[i]

    objective.logits = remember
    learning = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    n_two_seasons = 0
    for step in range(STEPS):  # the queue of three batches wraps around sixteen times
        batch, images, views = stream(step, objective)
        two = np.array([len(set(row)) == 2 for row in batch.season.tolist()])
        if name == "seco":
            n_two_seasons += two.sum()
            assert torch.equal(images[two, 1], images[two, 2])
        expected_loss, space_losses, expected_logits = slow.step(views)
        objective.before_step()
        results = objective(replace(batch, views=views))
        optimizer.zero_grad()
        results["loss"].backward()
        optimizer.step()
        objective.after_step()
        # double precision on both sides: only the order of sums differs
        assert results["loss"].item() == pytest.approx(expected_loss, rel=1e-9)
        for i, space in enumerate(objective.spaces):
            assert results[f"loss_{space.name}"].item() == pytest.approx(space_losses[i], rel=1e-9)
            torch.testing.assert_close(logits[i].detach(), expected_logits[i], rtol=1e-8, atol=1e-9)
    for i in range(len(objective.spaces)):
        torch.testing.assert_close(objective.queues[i].T, torch.stack(slow.queues[i]), rtol=1e-8, atol=1e-9)
    assert int(objective.queue_position) == slow.position
    for own, expected in zip(objective.key_encoder.parameters(), slow.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-8, atol=1e-10)
    assert name == "moco" or n_two_seasons > 10


def test_shuffled_keys_differ_only_by_their_normalization_groups(stream):
    """With one group per batch the order of samples cannot matter; with several it does."""
    for group, equal in ((BATCH, True), (2, False)):
        losses = []
        for shuffle in (False, True):
            objective = build("seco", shuffle_keys=shuffle)
            for module in (objective.encoder, objective.key_encoder):
                group_batch_norm(module, group)
            batch, _, views = stream(0, objective)
            objective.double().train().before_step()
            losses.append(objective(replace(batch, views=views))["loss"].item())
        assert (losses[0] == pytest.approx(losses[1], rel=1e-9)) is equal


def test_keys_and_queues_get_no_gradient(stream):
    objective = build("seco")
    batch, _, views = stream(0, objective)
    objective(replace(batch, views=views))["loss"].backward()
    assert all(p.grad is not None for p in [*objective.encoder.parameters(), *objective.heads.parameters()])
    key_parameters = [*objective.key_encoder.parameters(), *objective.key_heads.parameters()]
    assert all(p.grad is None for p in key_parameters)


def test_queues_start_on_the_unit_sphere_by_seed():
    one, two = build("seco"), build("seco")
    assert torch.equal(one.queues, two.queues)
    torch.testing.assert_close(
        one.queues.norm(dim=1), torch.ones(3, QUEUE, dtype=torch.double), rtol=1e-6, atol=0
    )
    assert not torch.equal(one.queues[0], one.queues[1])


def test_measures_of_collapsed_and_of_spread_out_spaces():
    same = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    collapsed = measure(same, same)
    assert [collapsed[name].item() for name in ("alignment", "uniformity", "std")] == pytest.approx(
        [0, 0, 0], abs=1e-6
    )
    torch.manual_seed(0)
    spread = torch.nn.functional.normalize(torch.randn(500, 64), dim=1)
    described = measure(spread, -spread)
    assert described["alignment"].item() == pytest.approx(4, rel=1e-5)
    assert described["std"].item() == pytest.approx(1, abs=0.02)
    assert described["uniformity"].item() == pytest.approx(-3.9, abs=0.1)  # d² is about 2 in 64 dimensions

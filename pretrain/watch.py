"""Watch an encoder while it learns: leave-one-out k-NN on the labelled patches of a task.

A few hundred locations suffice; one process embeds them while the others wait. Neighbors may lie next
to the location they predict, so the score tells progress and is no result: that is what the probes of
`pretrain.downstream` are for, with their folds.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.data import BandPlan, Batch, PatchReader, to_images
from pretrain.downstream.embed_patches import embed_chunks, locate_patches
from pretrain.downstream.embedder import Embedder, fit_size
from pretrain.downstream.knn_probe import Search, fill, vote
from pretrain.downstream.tasks import Task, encode_targets, with_classes
from pretrain.encoders import Encoder
from pretrain.recipes import Options
from workflow_scripts.core import tables
from workflow_scripts.core.store import open_store


class NeighborWatch:
    """The labelled patches of a task, ready to be embedded again and again."""

    def __init__(
        self, settings: Mapping[str, Any], *, store: Path, patches: Path, labels: Path, options: Options
    ) -> None:
        self.task = Task.from_settings(options.knn_task, settings)
        self.options = options
        index = tables.read_table(patches, "patches", columns=("location_id", "season", "status"))
        if self.task.seasons is not None:
            index = index[index["season"].isin(list(self.task.seasons))]
        with open_store(store) as coordinates:
            rows = locate_patches(index, coordinates=coordinates)
            self._coordinates = coordinates[["location_id", "lon", "lat", "season"]].load()
        location_id = self._coordinates["location_id"].values.astype(object)
        table = tables.read_table(labels, "labels", ["location_id", *self.task.targets])
        self.task = with_classes(self.task, table)
        known = table[table["location_id"].isin(location_id)]
        targets, is_known = encode_targets(
            {name: known[name].to_numpy() for name in self.task.targets}, self.task
        )
        row_of = {name: row for row, name in enumerate(location_id)}
        labelled = np.array([row_of[name] for name in known["location_id"]], np.int64)[is_known]
        self._locations, which, _ = np.intersect1d(labelled, rows[:, 0], return_indices=True)
        if len(self._locations) < 2:
            raise ValueError(
                f"knn.task {self.task.name!r}: {len(self._locations)} locations of dataset "
                f"{self.task.dataset!r} have a patch and a value of {list(self.task.targets)}; expected "
                "at least 2. Name another task, or leave knn out."
            )
        self._targets = targets[is_known][which]
        self._rows = rows[np.isin(rows[:, 0], self._locations)]
        self._reader = PatchReader(store, options.bands, n_threads=options.reader_threads)

    def is_due(self, step: int, per_epoch: int) -> bool:
        """Tell whether an epoch to look at has just ended."""
        return step % (per_epoch * self.options.knn_epochs) == 0

    def score(self, encoder: Encoder) -> dict[str, float]:
        """Give the task's main metric as ``{"knn_…": value}``, nothing where it is undefined.

        The encoder is left as it was.
        """
        weight = next(encoder.parameters())

        def embed(batch: Batch, plan: BandPlan) -> Tensor:
            images = fit_size(to_images(batch, plan)[:, 0], self.options.crop_px)
            return encoder(images.to(weight.dtype)).pooled

        embedder = Embedder(self.options.bands, encoder.feature_size, "", {}, embed)
        is_training = encoder.training
        encoder.eval()
        try:
            blocks = embed_chunks(
                self._reader,
                embedder,
                rows=self._rows,
                coordinates=self._coordinates,
                device=str(weight.device),
            )
            chunks = [block for _, block in blocks]
        finally:
            encoder.train(is_training)
        values = np.concatenate(chunks)[self._locations]
        features = np.nanmean(values, axis=1)
        places, k = torch.arange(len(features)), min(self.task.n_neighbors, len(features) - 1)
        search = Search(places, barred=places.to(torch.int32), count=k)  # none is its own neighbor
        fill([search], features, device="cpu")
        targets = torch.as_tensor(self._targets, dtype=torch.float32)
        ((_, voted),) = vote(search, targets, ks=[k], temperature=self.task.temperature)
        predicted = voted.numpy()
        name = self.task.main_metric
        found = float(self.task.rules.scores(predicted, self._targets)[name])
        return {f"knn_{name}": found} if math.isfinite(found) else {}

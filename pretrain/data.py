"""Batches of patches from the store, and their way to network inputs on the device.

Reader threads deliver native-resolution uint16 DN; resampling to 10 m, NDVI and scaling are done
for the whole batch on the device (`to_images`).
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from pretrain import sampler
from pretrain.reader import PatchArray, open_arrays
from pretrain.samples import Samples
from workflow_scripts.core.bands import WAVELENGTH_NM
from workflow_scripts.core.objects import open_folder

NDVI_BANDS = ("B08", "B04")
NDVI_SCALE = 10_000
"""NDVI as published: clipped at 0, times 10,000, whole numbers."""
INPUT_SCALE = 1 / 255
"""Scaling of the published code, whose ToTensor divides images with a maximum above 1 by 255."""
ORIGINS = ("origin_x", "origin_y", "origin60_x", "origin60_y")
"""Arrays that tell where the 60 m window of a patch lies."""
READ_ATTEMPTS = 10
"""Locations tried for a sample before unreadable patches end a run that may skip them."""

logger = logging.getLogger(__name__)


def send(values: np.ndarray, *, like: Tensor | None = None, device: torch.device | None = None) -> Tensor:
    """Copy an array to a device, without waiting for what the device is doing.

    Parameters
    ----------
    like : tensor whose type and device are taken
    device : where there is no `like`; the array's type is kept
    """
    tensor = torch.from_numpy(values)
    if like is not None:
        tensor, device = tensor.to(like.dtype), like.device
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class BandPlan:
    """Which stored bands are read to deliver the bands asked for."""

    bands: tuple[str, ...]
    """Bands in channel order; `NDVI` is computed."""
    stored: Mapping[str, tuple[str, ...]]
    """Array → bands to read from it."""
    positions: Mapping[str, np.ndarray]
    """Array → their positions in a stored patch."""


def plan_bands(
    bands: Sequence[str], arrays: Mapping[str, PatchArray], *, store: str | os.PathLike
) -> BandPlan:
    """Find each band in the store.

    Raises
    ------
    ValueError
        If a band is not there or named twice, or all are of 60 m.
    """
    if not bands or len(set(bands)) != len(bands):
        raise ValueError(f"bands {tuple(bands)!r}: expected at least one band, each named once")
    home = {band: name for name, array in arrays.items() for band in array.bands}
    needed = [band for band in bands if band != "NDVI"] + list(NDVI_BANDS if "NDVI" in bands else ())
    missing = [band for band in needed if band not in home]
    if missing:
        raise ValueError(
            f"bands {missing} are not in the store {store}, which has {sorted(home)} (NDVI is computed from "
            f"{' and '.join(NDVI_BANDS)}). Change `bands` of the model."
        )
    stored = {
        name: tuple(band for band in array.bands if band in needed)
        for name, array in arrays.items()
        if set(array.bands) & set(needed)
    }
    if set(stored) == {"dn60"}:
        raise ValueError(
            f"bands {tuple(bands)!r} are all of 60 m, whose window reaches beyond the patch; name one of 10 m or 20 m too"
        )
    positions = {
        name: np.array([arrays[name].bands.index(band) for band in wanted]) for name, wanted in stored.items()
    }
    return BandPlan(tuple(bands), stored, positions)


@dataclass(frozen=True)
class Batch:
    """Patches of some locations in some seasons, and what is known about them."""

    dn: dict[str, Tensor]
    """Array (`dn10` …) → uint16 (N, S, band, y, x), harmonized DN, 0 = no data."""
    shift60: Tensor | None
    """float32 (N, S, 2): edge of the patch from the edge of `dn60` (y, x), in 60 m pixels."""
    season: Tensor
    """int64 (N, S), position of the season in the store."""
    day_of_year: Tensor
    """float32 (N, S)."""
    lonlat: Tensor
    """float32 (N, 2), degrees."""
    location_id: tuple[str, ...]
    side: Tensor | None = None
    """float32 (N, column), the columns of the side table that the objective asks for; NaN where it has none."""
    epoch: int = 0
    slots: np.ndarray | None = None
    """int64 (N,), sample slots in the epoch: what random choices are keyed by."""
    batch_slots: np.ndarray | None = None
    """int64, the slots of all ranks, rank after rank."""
    views: tuple[Tensor, ...] = ()
    """Network inputs (N, C, H, W), as the objective declared them."""
    masks: tuple[Tensor, ...] = ()
    """bool (N, H, W) for each view, where it has data; only for an objective that needs them."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Change every tensor that has a row per sample."""
        changed = {
            name: change(tensor) for name in _PER_SAMPLE if (tensor := getattr(self, name)) is not None
        }
        return replace(
            self,
            **changed,
            dn={name: change(tensor) for name, tensor in self.dn.items()},
            views=tuple(map(change, self.views)),
            masks=tuple(map(change, self.masks)),
        )

    def to(self, device: torch.device) -> "Batch":
        """Move to a device; from pinned memory without waiting."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, n_parts: int) -> list["Batch"]:
        """Cut into consecutive parts of equal size; what concerns the whole batch stays."""
        size = len(self.location_id) // n_parts
        parts = [slice(first, first + size) for first in range(0, n_parts * size, size)]
        return [
            replace(self.each(itemgetter(part)), location_id=self.location_id[part], slots=self.slots[part])
            for part in parts
        ]


_PER_SAMPLE = ("shift60", "season", "day_of_year", "lonlat", "side")
"""Fields of a `Batch` that hold one tensor, or none."""


class PatchReader:
    """Reads batches from a store, on disk or in an object store; safe to use from several threads."""

    def __init__(
        self,
        store: str | os.PathLike,
        bands: Sequence[str],
        *,
        n_threads: int = 1,
        direct: bool = True,
        pin_memory: bool = False,
    ) -> None:
        self.arrays = open_arrays(store, direct=direct)
        self.plan = plan_bands(bands, self.arrays, store=store)
        self._pin_memory = pin_memory
        self._pool = ThreadPoolExecutor(n_threads, "reader") if n_threads > 1 else None
        self._shift60 = _read_shift60(store) if "dn60" in self.plan.stored else None

    def read(self, locations: np.ndarray, seasons: np.ndarray) -> tuple[dict[str, Tensor], Tensor | None]:
        """Read patches.

        Parameters
        ----------
        locations : int (N,), rows in the store
        seasons : int (N, S), positions; a season named twice for a location is read once

        Returns
        -------
        `dn` and `shift60` of a `Batch`
        """
        dn = self._empty(*seasons.shape)
        for _, error in self._fill(dn, range(len(seasons)), locations, seasons):
            raise error
        return dn, self._shifts(locations, seasons)

    def _empty(self, n: int, n_seasons: int) -> dict[str, Tensor]:
        return {
            name: torch.empty(
                (n, n_seasons, len(bands), *self.arrays[name].patch_shape[1:]),
                dtype=torch.uint16,
                pin_memory=self._pin_memory,
            )
            for name, bands in self.plan.stored.items()
        }

    def _fill(
        self, dn: dict[str, Tensor], rows: Iterable[int], locations: np.ndarray, seasons: np.ndarray
    ) -> Iterator[tuple[int, Exception]]:
        """Read rows of a batch into place; yield those that cannot be read, and why."""
        outputs = {name: tensor.numpy() for name, tensor in dn.items()}

        def fill(i: int) -> tuple[int, Exception] | None:
            try:
                for name, output in outputs.items():
                    for k, season in enumerate(seasons[i]):
                        earlier = np.flatnonzero(seasons[i, :k] == season)
                        if len(earlier):
                            output[i, k] = output[i, earlier[0]]
                        else:
                            self.arrays[name].read_into(
                                int(locations[i]), int(season), self.plan.positions[name], output[i, k]
                            )
            except (OSError, ValueError) as error:
                return i, error
            return None

        yield from filter(None, self._pool.map(fill, rows) if self._pool else map(fill, rows))

    def _shifts(self, locations: np.ndarray, seasons: np.ndarray) -> Tensor | None:
        if self._shift60 is None:
            return None
        return torch.from_numpy(self._shift60[locations[:, None], seasons])

    def read_batch(
        self,
        samples: Samples,
        batch: int,
        *,
        seed: int,
        epoch: int,
        n_seasons: int,
        batch_size: int,
        rank: int,
        n_ranks: int,
        n_parts: int = 1,
        max_seasons: int | None = None,
        side_columns: Sequence[str] = (),
        skip_unreadable: bool = False,
    ) -> Batch:
        """Draw and read this rank's part of one batch of an epoch.

        At most `max_seasons` distinct seasons are drawn per location. With `skip_unreadable`, a sample
        whose patches cannot be read is named in the log and another location is drawn in its place;
        else the first error is raised.
        """
        shares = {"batch_size": batch_size, "n_ranks": n_ranks, "n_parts": n_parts}
        all_slots = [sampler.rank_slots(batch, rank=other, **shares) for other in range(n_ranks)]
        slots = all_slots[rank]
        draw = {"seed": seed, "epoch": epoch}
        drawn = sampler.draw_locations(samples.weight, **draw, slots=slots)
        seasons = sampler.draw_seasons(
            samples.available[drawn], n_seasons, max_seasons=max_seasons, **draw, slots=slots
        )
        dn = self._empty(*seasons.shape)
        failed = np.arange(len(slots))
        for attempt in range(1, READ_ATTEMPTS + 1):
            errors = list(self._fill(dn, failed, samples.location[drawn], seasons))
            if errors and (not skip_unreadable or attempt == READ_ATTEMPTS):
                raise errors[0][1]
            if not errors:
                break
            failed = np.array([row for row, _ in errors])
            for row, error in errors:
                logger.warning("location %r is skipped: %s", str(samples.location_id[drawn[row]]), error)
            again = {**draw, "slots": slots[failed], "attempt": attempt}
            drawn[failed] = sampler.draw_locations(samples.weight, **again)
            seasons[failed] = sampler.draw_seasons(
                samples.available[drawn[failed]], n_seasons, max_seasons=max_seasons, **again
            )
        batch = Batch(
            dn=dn,
            shift60=self._shifts(samples.location[drawn], seasons),
            season=torch.from_numpy(seasons),
            day_of_year=torch.from_numpy(np.take_along_axis(samples.day_of_year[drawn], seasons, axis=1)),
            lonlat=torch.from_numpy(samples.lonlat[drawn]),
            location_id=tuple(samples.location_id[drawn].tolist()),
            side=torch.from_numpy(samples.side_values(side_columns)[drawn]) if side_columns else None,
            epoch=epoch,
            slots=slots,
            batch_slots=np.concatenate(all_slots),
        )
        return batch.each(Tensor.pin_memory) if self._pin_memory else batch


def _read_shift60(store: str | os.PathLike) -> np.ndarray:
    """Edge of each patch from the edge of its `dn60` window, (location, season, 2), y down and x, 60 m pixels."""
    folder = open_folder(store)
    origin = {name: zarr.open_array(folder.zarr_store(), path=name, mode="r")[:] for name in ORIGINS}
    down = origin["origin60_y"] - origin["origin_y"]
    right = origin["origin_x"] - origin["origin60_x"]
    return (np.stack([down, right], axis=-1) / 60).astype(np.float32)


def prefetch(read: Callable[[int], Batch], steps: Iterable[int], *, depth: int = 2) -> Iterator[Batch]:
    """Yield ``read(step)`` for each step, in order, reading `depth` batches ahead in a thread."""
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(1, "batches") as pool:
        try:
            for step in steps:
                pending.append(pool.submit(read, step))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device; on a GPU each is copied there while the one before it is worked on."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            following = batch.to(device), copying.record_event()
        if ahead is not None:
            yield _take_over(*ahead, device)
        ahead = following
    if ahead is not None:
        yield _take_over(*ahead, device)


def _take_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the working stream wait for a copy, and keep its memory as long as that stream uses it."""
    working = torch.cuda.current_stream(device)
    working.wait_event(copied)

    def keep(tensor: Tensor) -> Tensor:
        tensor.record_stream(working)
        return tensor

    return batch.each(keep)


def resampling_matrix(position: Tensor, n: int) -> Tensor:
    """Turn source positions into a matrix of bilinear weights.

    Parameters
    ----------
    position : (…, m), in pixels, 0 at the center of the first source pixel; held at the edges
    n : source pixels

    Returns
    -------
    (…, m, n), rows sum to 1
    """
    source = torch.arange(n, device=position.device, dtype=position.dtype)
    return (1 - (position.clamp(0, n - 1).unsqueeze(-1) - source).abs()).clamp(min=0)


def to_images(batch: Batch, plan: BandPlan) -> Tensor:
    """Bring a batch to network scale on the 10 m grid.

    20 m bands are interpolated bilinearly between pixel centers, 60 m bands on their own lattice;
    NDVI is computed at 10 m. Reflectance bands are DN / 255, NDVI is × 10000 / 255 after clipping
    at 0 (`published` scaling).

    Returns
    -------
    float32 (N, S, band, y, x), bands in the plan's order; no data stays 0 at native resolution
    """
    n10 = batch.dn["dn10"].shape[-1] if "dn10" in batch.dn else None
    channels: dict[str, Tensor] = {}
    for name, bands in plan.stored.items():
        dn = batch.dn[name].to(torch.float32)
        if name == "dn20":
            dn = functional.interpolate(dn.flatten(0, 1), scale_factor=2, mode="bilinear").unflatten(
                0, dn.shape[:2]
            )
        elif name == "dn60":
            size = n10 or 2 * batch.dn["dn20"].shape[-1]
            center = (torch.arange(size, device=dn.device) + 0.5) / 6 - 0.5
            rows, columns = (
                resampling_matrix(batch.shift60[..., axis, None] + center, dn.shape[-2 + axis]).unsqueeze(2)
                for axis in range(2)
            )
            dn = rows @ dn @ columns.transpose(-1, -2)
        channels |= dict(zip(bands, dn.unbind(2), strict=True))
    if "NDVI" in plan.bands:
        near_infrared, red = (channels[band] for band in NDVI_BANDS)
        total = near_infrared + red
        ratio = (near_infrared - red) / total.clamp(min=1)
        channels["NDVI"] = (ratio.clamp(min=0) * NDVI_SCALE).floor() * ((near_infrared > 0) & (red > 0))
    return torch.stack([channels[band] for band in plan.bands], dim=2) * INPUT_SCALE


def to_valid(batch: Batch) -> Tensor:
    """Tell which pixels of `to_images` are made of data alone in all bands of 10 m and 20 m, bool (N, S, y, x).

    The 60 m bands are left out: their window may reach beyond the file without a hole in the patch.
    """
    valid = {
        name: (dn.view(torch.int16) != 0).all(dim=2)  # few operations know uint16
        for name, dn in batch.dn.items()
        if name != "dn60"
    }
    if "dn20" in valid:  # a hole reaches as far as the interpolation
        share = functional.interpolate(valid["dn20"].to(torch.float32), scale_factor=2, mode="bilinear")
        valid["dn20"] = share == 1
    return torch.stack(list(valid.values())).all(dim=0)


class PatchDataset(Dataset):
    """The patches of a store as an ordinary torch Dataset, for any training code.

    An item is one patch: `image` float32 (band, y, x) at 10 m in DN (NDVI × 10000), `mask` bool
    (y, x) where it is made of data alone in all bands of 10 m and 20 m, `bands`, `wavelength_nm` (NaN for NDVI), `day_of_year`,
    `lonlat`, `season`, `location_id`.

    A store on disk suits every kind of loader worker. One in an object store needs workers that are
    started anew (``multiprocessing_context="spawn"``): connections do not survive a fork.

    Parameters
    ----------
    store : the `patches.zarr` folder, a path or an address
    samples : which patches (`pretrain.samples.read_dataset`)
    bands : in channel order
    """

    def __init__(self, store: str | os.PathLike, samples: Samples, bands: Sequence[str]) -> None:
        self.samples = samples
        self._opened_by = store, samples, bands
        self._reader = PatchReader(store, bands)
        self._items = np.argwhere(samples.available)

    def __reduce__(self) -> tuple[type["PatchDataset"], tuple[Any, ...]]:
        """Open again where it is sent to, for workers that do not share this process's memory."""
        return type(self), self._opened_by

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one patch."""
        row, season = self._items[index]
        samples, plan = self.samples, self._reader.plan
        dn, shift60 = self._reader.read(samples.location[[row]], np.array([[season]]))
        batch = Batch(dn, shift60, torch.tensor([[season]]), torch.zeros(1, 1), torch.zeros(1, 2), ())
        image = to_images(batch, plan)[0, 0] / INPUT_SCALE
        return {
            "image": image,
            "mask": to_valid(batch)[0, 0],
            "bands": plan.bands,
            "wavelength_nm": torch.tensor([WAVELENGTH_NM.get(band, float("nan")) for band in plan.bands]),
            "day_of_year": float(samples.day_of_year[row, season]),
            "lonlat": torch.from_numpy(samples.lonlat[row]),
            "season": str(samples.seasons[season]),
            "location_id": str(samples.location_id[row]),
        }

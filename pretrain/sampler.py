"""Which location and which seasons stand at each sample slot of an epoch.

Locations are drawn with replacement in proportion to their weight, as many as the dataset has
(rounded down to whole batches): a pure function of seed and epoch, the same on every rank. The
published command passed no weights and the code read them in directory order; here they are joined
by `location_id`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pretrain.randomness import STREAM_LOCATIONS, STREAM_SEASONS, STREAMS_PER_ATTEMPT, uniforms


def match_weights(location_ids: Sequence[str], weights: pd.DataFrame) -> np.ndarray:
    """Give each location its sampling weight.

    Parameters
    ----------
    location_ids : the locations to train on
    weights : columns `location_id`, `weight` (≥ 0)

    Returns
    -------
    float64 array, one weight per location, in the order given

    Raises
    ------
    ValueError
        If a location has no weight, a weight is negative or missing, or all are zero.
    """
    table = weights.set_index("location_id")["weight"]
    repeated = table.index[table.index.duplicated()]
    if len(repeated):
        raise ValueError(f"weights name location {repeated[0]!r} more than once")
    matched = table.reindex(list(location_ids)).to_numpy(float)
    missing = np.flatnonzero(np.isnan(matched))
    if len(missing):
        names = ", ".join(repr(location_ids[i]) for i in missing[:3])
        raise ValueError(
            f"weights cover {len(matched) - len(missing)} of {len(matched)} training locations; without "
            f"a weight: {names}{' …' if len(missing) > 3 else ''}. Make weights.parquet again from "
            "this dataset (rule weigh_locations)."
        )
    if (matched < 0).any() or not np.isfinite(matched).all():
        worst = location_ids[int(np.argmax((matched < 0) | ~np.isfinite(matched)))]
        raise ValueError(f"location {worst!r} has an impossible weight; expected a number ≥ 0")
    if matched.sum() == 0:
        raise ValueError("all training locations have weight 0; expected at least one positive weight")
    return matched


def draw_locations(
    weights: np.ndarray, *, seed: int, epoch: int, slots: np.ndarray, attempt: int = 0
) -> np.ndarray:
    """Draw the location of each slot, with replacement, in proportion to its weight.

    Parameters
    ----------
    attempt : counts up where a location is drawn anew for a slot

    Returns
    -------
    int64 array, positions in `weights`, one per slot
    """
    cumulative = np.cumsum(weights)
    stream = STREAM_LOCATIONS + STREAMS_PER_ATTEMPT * attempt
    draws = uniforms(seed, epoch=epoch, stream=stream, slots=slots, n=1)[:, 0]
    positions = np.searchsorted(cumulative, draws * cumulative[-1], side="right")
    return np.minimum(positions, np.flatnonzero(weights)[-1])


def draw_seasons(
    available: np.ndarray,
    n_seasons: int,
    *,
    seed: int,
    epoch: int,
    slots: np.ndarray,
    attempt: int = 0,
    max_seasons: int | None = None,
) -> np.ndarray:
    """Draw distinct seasons for each slot, in random order.

    Parameters
    ----------
    available : bool array (slot, season), at least one true per slot
    n_seasons : seasons to draw
    attempt : as of `draw_locations`
    max_seasons : at most so many distinct ones; None is no such limit

    Returns
    -------
    int64 array (slot, n_seasons), positions of seasons. Where fewer are available the last one
    drawn is repeated (with two: s1, s2, s2, as the published code does).
    """
    stream = STREAM_SEASONS + STREAMS_PER_ATTEMPT * attempt
    draws = uniforms(seed, epoch=epoch, stream=stream, slots=slots, n=available.shape[1])
    order = np.argsort(np.where(available, draws, np.inf), axis=1, kind="stable")
    last = np.minimum(available.sum(axis=1, keepdims=True), max_seasons or n_seasons) - 1
    return np.take_along_axis(order, np.minimum(np.arange(n_seasons)[None, :], last), axis=1)


def rank_slots(batch: int, *, batch_size: int, rank: int, n_ranks: int, n_parts: int = 1) -> np.ndarray:
    """Slots one rank takes of a batch, the slots ``batch · batch_size + 0, 1, …``.

    The batch is cut into `n_parts` consecutive parts (gradient accumulation) and each part into one
    consecutive piece per rank, so that in every part the ranks' samples follow each other.
    """
    slots = batch * batch_size + np.arange(batch_size)
    return slots.reshape(n_parts, n_ranks, -1)[:, rank].ravel()

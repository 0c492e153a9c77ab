"""Random numbers as a pure function of what they are for (counter-based, Philox 4x32-10).

Every random choice of a training run is ``uniforms(seed, epoch=…, stream=…, slots=…)``: it depends on
nothing that ran before, so neither on the number of processes and reader threads nor on a restart.

References
----------
Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011); the test
vectors are those of their Random123 library.
"""

import numpy as np

STREAM_LOCATIONS = 0
STREAM_SEASONS = 1
STREAM_SHUFFLE = 2
STREAM_VIEWS = 16
"""Streams of draws; view `v` of a sample uses ``STREAM_VIEWS + v``."""
STREAMS_PER_ATTEMPT = 1 << 16
"""Distance between the streams of one attempt at a sample and the next."""

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Turn counters into random words.

    Parameters
    ----------
    counter : integer array (…, 4), each 0 to 2³² − 1
    key : two integers, 0 to 2³² − 1

    Returns
    -------
    uint32 array (…, 4)
    """
    a, b, c, d = (np.asarray(counter)[..., i].astype(np.uint64) for i in range(4))
    for round_number in range(10):
        k0, k1 = (np.uint64((key[i] + round_number * _WEYL[i]) & 0xFFFFFFFF) for i in range(2))
        p0, p1 = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a, b, c, d = (p1 >> _SHIFT) ^ b ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ d ^ k1, p0 & _LOW
    return np.stack([a, b, c, d], axis=-1).astype(np.uint32)


def uniforms(seed: int, *, epoch: int, stream: int, slots: np.ndarray, n: int) -> np.ndarray:
    """Draw `n` numbers for each sample slot of an epoch.

    Parameters
    ----------
    seed : 0 to 2⁶⁴ − 1
    epoch, stream : what the draw is for
    slots : integer array (N,), position of the sample in its epoch, 0 to 2³² − 1
    n : draws per slot

    Returns
    -------
    float64 array (N, n), 0 ≤ u < 1, 53 random bits
    """
    slots = np.asarray(slots, np.int64)
    n_blocks = -(-n // 2)
    counter = np.empty((len(slots), n_blocks, 4), np.int64)
    counter[..., 0] = slots[:, None]
    counter[..., 1] = epoch
    counter[..., 2] = stream
    counter[..., 3] = np.arange(n_blocks)
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).astype(np.uint64)
    high, low = words[..., 0::2] >> np.uint64(5), words[..., 1::2] >> np.uint64(6)
    draws = (high * np.uint64(1 << 26) + low) * 2.0**-53
    return draws.reshape(len(slots), 2 * n_blocks)[:, :n]

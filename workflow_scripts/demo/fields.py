"""Seeded randomness: generators by name, smooth fields over the plane, textures of pixels."""

from zlib import crc32

import numpy as np
from scipy.ndimage import gaussian_filter

N_WAVES = 24


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Give the generator of a thing by its name, so that no draw depends on the order of work."""
    return np.random.default_rng([seed, *(crc32(str(name).encode()) for name in names)])


def smooth_field(
    rng: np.random.Generator, east_km: np.ndarray, north_km: np.ndarray, *, scale_km: float
) -> np.ndarray:
    """Give a stationary random field of about unit variance: a sum of plane waves.

    It is a function of the place alone, whatever grid it is evaluated on. `scale_km` is the
    correlation length (the standard deviation of its nearly Gaussian covariance).
    """
    waves = rng.standard_normal((N_WAVES, 2)) / scale_km
    phases = rng.uniform(0, 2 * np.pi, N_WAVES)
    east, north = np.asarray(east_km, np.float32), np.asarray(north_km, np.float32)  # much faster cosines
    total = np.zeros(east.shape)
    for along_east, along_north, phase in np.column_stack([waves, phases]).astype(np.float32):
        total += np.cos(along_east * east + along_north * north + phase)
    return total * np.sqrt(2 / N_WAVES)


def texture(rng: np.random.Generator, n: int, *, scales: dict[float, float]) -> np.ndarray:
    """Give an (n, n) float32 texture of unit variance: white noise smoothed at several scales.

    `scales` gives the weight of each standard width in pixels.
    """
    total = np.zeros((n, n), np.float32)
    for sigma, weight in scales.items():
        part = gaussian_filter(rng.standard_normal((n, n), dtype=np.float32), sigma, mode="wrap")
        total += weight * part / part.std()
    return total / total.std()

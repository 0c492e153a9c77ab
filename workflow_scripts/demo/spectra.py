"""Linear mixing of pure spectra, and the vegetation indices of the mixture."""

import numpy as np

from workflow_scripts.core.bands import ALL_BANDS
from workflow_scripts.demo.parameters import SPECTRA, Ecoregion


def pure(name: str) -> np.ndarray:
    """Give the reflectance of a pure cover, shape (12,), in `ALL_BANDS` order."""
    return np.array(SPECTRA[name])


def endmembers(ecoregions: tuple[Ecoregion, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Give background and green reflectance of each ecoregion, both of shape (ecoregion, 12)."""
    background = [sum(share * pure(name) for name, share in e.background) for e in ecoregions]
    return np.array(background), np.array([pure(e.green) for e in ecoregions])


def mix(
    cover: np.ndarray, background: np.ndarray, green: np.ndarray, *, snow: np.ndarray | None = None
) -> np.ndarray:
    """Mix background and green by `cover`, then snow over both by its fraction.

    Parameters
    ----------
    cover, snow : fractions 0–1, any shape
    background, green : reflectance, shape of `cover` (or broadcast to it) and a last axis of bands;
        `snow` needs all twelve bands
    """
    reflectance = background + cover[..., None] * (green - background)
    if snow is None:
        return reflectance
    return reflectance + snow[..., None] * (pure("snow") - reflectance)


def _band(reflectance: np.ndarray, name: str) -> np.ndarray:
    return reflectance[..., ALL_BANDS.index(name)]


def evi(reflectance: np.ndarray) -> np.ndarray:
    """Compute EVI = 2.5 (N - R) / (N + 6 R - 7.5 B + 1) (Huete et al., 2002)."""
    blue, red, nir = (_band(reflectance, name) for name in ("B02", "B04", "B08"))
    return 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)


def evi2(reflectance: np.ndarray) -> np.ndarray:
    """Compute EVI2 = 2.5 (N - R) / (N + 2.4 R + 1) (Jiang et al., 2008), which is safe over snow."""
    red, nir = _band(reflectance, "B04"), _band(reflectance, "B08")
    return 2.5 * (nir - red) / (nir + 2.4 * red + 1)


def ndvi(reflectance: np.ndarray) -> np.ndarray:
    """Compute NDVI = (N - R) / (N + R) (Tucker, 1979)."""
    red, nir = _band(reflectance, "B04"), _band(reflectance, "B08")
    return (nir - red) / (nir + red)

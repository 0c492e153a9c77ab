"""Pictures of patches with one fixed stretch, so that they can be compared."""

import numpy as np

from workflow_scripts.core import bands

TRUE_COLOR = ("B04", "B03", "B02")
GAMMA = 1.8
"""Brightens dark vegetation; shown = (reflectance / white) ** (1 / gamma)."""
NO_DATA_GRAY = 225


def true_color(dn10: np.ndarray, names: list[str], *, white: float) -> np.ndarray:
    """Turn DN into a picture with a fixed stretch.

    Parameters
    ----------
    dn10 : uint16 array (band, y, x), 0 = no data
    names : its bands
    white : reflectance shown as white

    Returns
    -------
    uint8 array (y, x, 3); pixels without data are light gray
    """
    dn = np.stack([dn10[names.index(band)] for band in TRUE_COLOR], axis=-1)
    scaled = np.clip(dn * bands.REFLECTANCE_SCALE / white, 0, 1) ** (1 / GAMMA)
    shown = np.rint(255 * scaled).astype(np.uint8)
    shown[(dn == 0).any(axis=-1)] = NO_DATA_GRAY
    return shown

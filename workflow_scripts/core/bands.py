"""Sentinel-2 Level-2A facts: bands, scene classes, asset names, radiometric offset, NDVI.

Sources: ESA Sentinel-2 Products Specification Document; the STAC items of the catalogs named below.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

BANDS10 = ("B02", "B03", "B04", "B08")
BANDS20 = ("B05", "B06", "B07", "B8A", "B11", "B12")
BANDS60 = ("B01", "B09")
ALL_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""The twelve Level-2A bands in spectral order (B10 has no surface reflectance)."""

RESOLUTION_M = MappingProxyType(
    {**dict.fromkeys(BANDS10, 10), **dict.fromkeys(BANDS20, 20), **dict.fromkeys(BANDS60, 60)}
)

WAVELENGTH_NM = MappingProxyType(
    {
        "B01": 443,
        "B02": 490,
        "B03": 560,
        "B04": 665,
        "B05": 705,
        "B06": 740,
        "B07": 783,
        "B08": 842,
        "B8A": 865,
        "B09": 945,
        "B11": 1610,
        "B12": 2190,
    }
)
"""Nominal center wavelength of each band."""

REFLECTANCE_SCALE = 1e-4
"""Surface reflectance = harmonized DN × this."""

BASELINE_OFFSET_DN = 1000
"""Added by ESA to every DN since processing baseline 04.00 (25 January 2022)."""

SCL_CLASSES = MappingProxyType(
    {
        0: "no data",
        1: "saturated or defective",
        2: "dark area",
        3: "cloud shadow",
        4: "vegetation",
        5: "not vegetated",
        6: "water",
        7: "unclassified",
        8: "cloud, medium probability",
        9: "cloud, high probability",
        10: "thin cirrus",
        11: "snow or ice",
    }
)
SCL_CLOUD = (3, 8, 9, 10)
"""Scene classes that hide the ground; snow (11) never counts as cloud."""
SCL_SNOW = (11,)
SCL_NODATA = (0, 1)
_VEGETATION, _WATER = 4, 6
_MIN_TELLING_PIXELS = 100
"""Fewer pixels of a class are mostly its border."""
_MIN_TELLING_SHARE = 0.1
"""Less vegetation in a patch may be a mistake of the classification, as on snow."""

_EARTH_SEARCH_ASSETS = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B11": "swir16",
    "B12": "swir22",
    "SCL": "scl",
}
_BAND_NAMED_ASSETS = {band: band for band in (*ALL_BANDS, "SCL")}

ASSET_NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "earth-search": _EARTH_SEARCH_ASSETS,
        "earth-search-c1": _EARTH_SEARCH_ASSETS,
        "planetary-computer": _BAND_NAMED_ASSETS,
        "plain": _BAND_NAMED_ASSETS,
    }
)
"""Asset key of each band (and SCL), per catalog convention."""


def baseline_number(baseline: str | None) -> float:
    """Give a processing baseline such as ``"05.09"`` as a number (NaN if unknown)."""
    try:
        return float(baseline) if baseline else float("nan")
    except ValueError:
        return float("nan")


def dn_offset(properties: Mapping[str, Any], convention: str) -> tuple[int, str]:
    """Decide from an item's own fields which offset its pixels still carry.

    Parameters
    ----------
    properties : the item's STAC properties
    convention : one of `ASSET_NAMES`

    Returns
    -------
    offset : DN to subtract, 0 or 1000; -1 where the fields do not decide
    source : the field (and its value) that decided

    Notes
    -----
    Where a baseline decides, it is `s2:processing_baseline`, which catalogs take from the product's
    metadata; a product name or data take that says otherwise across 04.00 is recorded in `source`
    and overruled. `raster:bands` is not asked: Earth Search writes -0.1 there even where the
    offset was removed.

    ``earth-search``: `earthsearch:boa_offset_applied` true means already removed, false means 1000
    from baseline 04.00 on and 0 before. ``earth-search-c1``: the offset is always present.
    ``planetary-computer``: 1000 from baseline 04.00 on, by the baseline and not the date, since
    early scenes were reprocessed. ``plain``: an explicit `dn_offset` property, else undecided.
    """
    baseline = properties.get("s2:processing_baseline")
    number = baseline_number(baseline)
    if convention == "plain":
        if "dn_offset" in properties:
            return int(properties["dn_offset"]), f"dn_offset={properties['dn_offset']}"
        return -1, "no dn_offset property"
    if convention == "earth-search-c1":
        against = f", though s2:processing_baseline={baseline} never had one" if number < 4 else ""
        if properties.get("earthsearch:boa_offset_applied") is True:
            against += ", though earthsearch:boa_offset_applied=true"
        return BASELINE_OFFSET_DN, f"collection sentinel-2-c1-l2a{against}"
    if convention == "earth-search":
        applied = properties.get("earthsearch:boa_offset_applied")
        if applied is None or applied != applied:
            return -1, "earthsearch:boa_offset_applied missing"
        if bool(applied):
            against = f", though s2:processing_baseline={baseline} never had one" if number < 4 else ""
            return 0, f"earthsearch:boa_offset_applied=true{against}"
        if np.isnan(number):
            return -1, "s2:processing_baseline missing"
        source = f"earthsearch:boa_offset_applied=false, s2:processing_baseline={baseline}"
        return (BASELINE_OFFSET_DN if number >= 4 else 0), source + _contradiction(properties, number)
    if convention == "planetary-computer":
        if np.isnan(number):
            return -1, "s2:processing_baseline missing"
        source = f"s2:processing_baseline={baseline}{_contradiction(properties, number)}"
        return (BASELINE_OFFSET_DN if number >= 4 else 0), source
    raise ValueError(f"catalog convention {convention!r} is not one of {sorted(ASSET_NAMES)}")


def _contradiction(properties: Mapping[str, Any], number: float) -> str:
    """Name the fields whose baseline lies on the other side of 04.00; empty where none does."""
    told = []
    for field in ("s2:product_uri", "s2:datatake_id"):  # …_N0510_…, …_N05.10
        for part in str(properties.get(field) or "").split("_"):
            digits = part[1:].replace(".", "")
            is_baseline = part[:1] == "N" and len(digits) == 4 and digits.isdigit()
            if is_baseline and (int(digits) >= 400) != (number >= 4):
                told.append(f"{field} says {digits[:2]}.{digits[2:]}")
    return f", though {', '.join(told)}" if told else ""


def harmonize(dn: np.ndarray, offset: int) -> np.ndarray:
    """Remove a radiometric offset from DN.

    Parameters
    ----------
    dn : uint16 array, 0 = no data
    offset : DN to subtract, 0 to 65535

    Returns
    -------
    uint16 array of the same shape; 0 stays 0, every other pixel is at least 1 (saturating)
    """
    if offset == 0:
        return dn
    result = np.maximum(dn, offset + 1)
    result -= np.uint16(offset)
    result *= dn != 0
    return result


def offset_doubt(dn10: np.ndarray, dn20: np.ndarray, scl: np.ndarray, offset: int) -> str:
    """Say what in a patch's own pixels speaks against the offset that was removed from them.

    Catalogs publish wrong flags. Two levels are known well enough to notice: water reflects next to
    nothing at 2,190 nm, and the darkest vegetation some hundredths at 490 nm (on real scenes of 2023 200
    to 380 DN), so that a median, or a twentieth, of 0.1 is an offset that was left in; and where most
    pixels of vegetation fall to the lowest value, an offset was removed that was not there.

    Parameters
    ----------
    dn10, dn20 : harmonized DN of `BANDS10` and `BANDS20`, (band, y, x)
    scl : scene classification, (y, x)
    offset : DN that was subtracted

    Returns
    -------
    text; empty where nothing speaks against it, or too few pixels tell
    """
    water = dn20[BANDS20.index("B12")][scl == _WATER]
    green = dn10[BANDS10.index("B02"), ::2, ::2][scl == _VEGETATION]
    for band, name, values, least, darkest in (
        ("B12", "water", water[water > 0], _MIN_TELLING_PIXELS, 50),
        ("B02", "vegetation", green[green > 0], _MIN_TELLING_SHARE * scl.size, 5),
    ):
        if values.size < least:
            continue
        level = np.percentile(values, darkest)
        if offset == 0 and level >= BASELINE_OFFSET_DN:
            return f"no offset removed, but {band} over {name} is {level:.0f} DN: it may still be there"
        if offset > 0 and name == "vegetation" and np.mean(values == 1) > 0.5:
            return f"{offset} DN removed, but {np.mean(values == 1):.0%} of {band} over {name} fell to 1"
    return ""


def ndvi(nir_dn: np.ndarray, red_dn: np.ndarray) -> np.ndarray:
    """Compute NDVI = (NIR − red) / (NIR + red) of harmonized DN (Tucker, 1979).

    Returns
    -------
    float32 array, -1 to 1; NaN where either band has no data (0)
    """
    nir = np.asarray(nir_dn, np.float32)
    red = np.asarray(red_dn, np.float32)
    valid = (nir > 0) & (red > 0)
    return np.where(valid, (nir - red) / np.where(valid, nir + red, 1), np.nan).astype(np.float32)

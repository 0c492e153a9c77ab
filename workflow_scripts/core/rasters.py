"""Rasters and the points that lie on their pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import rasterio.errors
import rioxarray

WINDOW_PIXELS = 1024
"""Side of the windows in which a raster is read: bounds the memory for global rasters."""


def raster_values(
    points: pd.DataFrame,
    path: str,
    band: int | None = None,
    *,
    scale: float | None = None,
    offset: float | None = None,
) -> pd.Series:
    """Give the value of the raster pixel that holds each point.

    Parameters
    ----------
    points : `lon`, `lat`, degrees
    path : raster with a CRS; the band's scale and offset, where it has them, are applied
    band : its number, 1 by default
    scale, offset : value = stored number × scale + offset, in place of what the file says; None: the file's

    Returns
    -------
    Series of nullable Int64 or Float64; NA outside the raster and on its no-data value
    """
    band = 1 if band is None else int(band)
    if "://" not in path and not Path(path).exists():
        raise FileNotFoundError(f"no file {path!r}")
    try:
        raster = rioxarray.open_rasterio(path, mask_and_scale=False)
    except rasterio.errors.RasterioIOError as error:
        raise ValueError(f"{path!r} is not a readable raster: {error}") from error
    with raster:
        if raster.rio.crs is None:
            raise ValueError(f"{path!r} names no coordinate reference system. Write it into the file.")
        if band not in raster["band"].to_numpy():
            raise ValueError(f"{path!r} has no band {band!r}; it has {raster.sizes['band']} band(s)")
        raster = raster.sel(band=band)
        values, is_valid = _pixel_values(raster, points)
        nodata = raster.rio.nodata
        scale = raster.attrs.get("scale_factor", 1.0) if scale is None else float(scale)
        offset = raster.attrs.get("add_offset", 0.0) if offset is None else float(offset)
    if nodata is not None:
        is_valid &= ~(np.isnan(values) if np.isnan(nodata) else values == nodata)
    if np.issubdtype(values.dtype, np.integer) and (scale, offset) == (1.0, 0.0):
        return pd.Series(pd.arrays.IntegerArray(values.astype("int64"), ~is_valid))
    values = values.astype("float64") * scale + offset
    return pd.Series(pd.arrays.FloatingArray(values, ~(is_valid & np.isfinite(values))))


def _pixel_values(raster: Any, points: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Read the pixels under the locations window by window; and which points the raster holds."""
    transformer = pyproj.Transformer.from_crs(4326, raster.rio.crs, always_xy=True)
    x, y = transformer.transform(points["lon"].to_numpy(), points["lat"].to_numpy())
    column, row = ~raster.rio.transform() @ (np.asarray(x), np.asarray(y))
    is_held = np.isfinite(column) & np.isfinite(row)
    column = np.floor(np.where(is_held, column, -1)).astype(np.int64)
    row = np.floor(np.where(is_held, row, -1)).astype(np.int64)
    height, width = raster.shape
    is_held &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    values = np.zeros(len(points), raster.dtype)
    windows = pd.DataFrame({"row": row // WINDOW_PIXELS, "column": column // WINDOW_PIXELS})
    for (down, across), members in windows[is_held].groupby(["row", "column"]).groups.items():
        members = np.asarray(members)
        block = raster.isel(
            y=slice(down * WINDOW_PIXELS, (down + 1) * WINDOW_PIXELS),
            x=slice(across * WINDOW_PIXELS, (across + 1) * WINDOW_PIXELS),
        ).to_numpy()
        values[members] = block[row[members] % WINDOW_PIXELS, column[members] % WINDOW_PIXELS]
    return values, is_held

"""Write patches as GeoTIFFs, for QGIS, R, and programs made for the published dataset.

    python -m workflow_scripts.export results/datasets/demo/patches.zarr --to exported --locations 412U_87R
    python -m workflow_scripts.export results/datasets/demo/patches.zarr --to exported --layout published

Reads : patches.zarr, and patches.parquet beside it.
Writes: layout `native`: {location_id}/{season}_{10m,20m,60m,scl}.tif, the stored pixels as they are;
        layout `published`: imgs/{index}/{date}_{tile}.tif, 13 bands of uint16, LZW with predictor 2:
        the twelve bands in spectral order at 10 m, then NDVI × 10,000, negative NDVI as 0.

In the published layout, bands of 20 m and 60 m are interpolated bilinearly within the patch. SSL4Eco's
own files were interpolated on the whole scene, so pixels along the border differ from theirs by what
lies beyond it; its 60 m bands are alike only as far as the stored window reaches. The index is
the location's row in locations.parquet.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import xarray as xr

from workflow_scripts.core import bands, store, tables
from workflow_scripts.core.patches import PARTS
from workflow_scripts.core.stage import atomic_path

LAYOUTS = ("native", "published")
NDVI_SCALE = 10_000
_STEPS = {"dn10": 10, "dn20": 20, "dn60": 60, "scl": 20}
_PACKED = {
    "native": {"compress": "deflate", "predictor": 2},
    "published": {"compress": "lzw", "predictor": 2},
}


def chosen_patches(index: pd.DataFrame, locations: Sequence[str], seasons: Sequence[str]) -> pd.DataFrame:
    """Give the patches of some locations and seasons; of all where none are named.

    Raises
    ------
    ValueError
        If a name is not in the index, or no patch is left.
    """
    for column, names in (("location_id", locations), ("season", seasons)):
        unknown = sorted(set(names) - set(index[column]))
        if unknown:
            known = ", ".join(map(str, index[column].unique()[:5]))
            raise ValueError(f"patches.parquet has no {column} {unknown[:5]}; it has {known}, …")
        if names:
            index = index[index[column].isin(names)]
    missing = index[index["status"] != "ok"]
    there = index[index["status"] == "ok"]
    if there.empty:
        reasons = ", ".join(f"{k} {n}" for k, n in missing["reason"].value_counts().items())
        raise ValueError(f"there is no patch among the {len(index)} chosen ones ({reasons})")
    return there


def export_native(patch: xr.Dataset, row: Any, folder: Path) -> Iterator[Path]:
    """Write a patch as it is stored: a file per pixel size, and the scene classification."""
    for part, names in PARTS.items():
        values = patch[part].values
        x, y = (patch["origin60_x"], patch["origin60_y"]) if part == "dn60" else (row.origin_x, row.origin_y)
        path = folder / row.location_id / f"{row.season}_{'scl' if part == 'scl' else f'{_STEPS[part]}m'}.tif"
        layers = values[None] if part == "scl" else values
        scale = None if part == "scl" else bands.REFLECTANCE_SCALE
        write_geotiff(
            path,
            layers,
            names,
            row,
            corner=(float(x), float(y)),
            step=_STEPS[part],
            layout="native",
            scale=scale,
        )
        yield path


def export_published(patch: xr.Dataset, row: Any, folder: Path) -> Iterator[Path]:
    """Write a patch as the published dataset has it."""
    values = published_bands(patch)
    name = f"{row.datetime:%Y%m%d}_T{row.mgrs_tile}"
    path = folder / "imgs" / f"{row.location:06d}" / f"{name}.tif"
    corner = row.origin_x, row.origin_y
    write_geotiff(path, values, (*bands.ALL_BANDS, "NDVI"), row, corner=corner, step=10, layout="published")
    yield path


def published_bands(patch: xr.Dataset) -> np.ndarray:
    """Give one patch in the published layout: (13, y, x), uint16; 0 = no data."""
    dn = np.nan_to_num(store.cube10(patch).values)
    ndvi = np.nan_to_num(store.ndvi10(patch).values)
    return np.concatenate([np.rint(dn), np.clip(ndvi, 0, None)[None] * NDVI_SCALE]).astype(np.uint16)


def write_geotiff(
    path: Path,
    values: np.ndarray,
    names: Sequence[str],
    row: Any,
    *,
    corner: tuple[float, float],
    step: int,
    layout: str,
    scale: float | None = None,
) -> None:
    """Write one file, whole or not at all.

    Parameters
    ----------
    path : of the file
    values : (band, y, x)
    names : of the bands
    row : of table `patches`
    corner : west and north edge, meters
    step : pixel size, meters
    layout : one of `LAYOUTS`
    scale : from stored values to reflectance, noted in the file
    """
    n_bands, height, width = values.shape
    with (
        atomic_path(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            count=n_bands,
            height=height,
            width=width,
            dtype=values.dtype,
            crs=f"EPSG:{row.epsg}",
            transform=rasterio.Affine(step, 0, corner[0], 0, -step, corner[1]),
            nodata=0,
            **_PACKED[layout],
        ) as file,
    ):
        file.write(values)
        file.descriptions = tuple(names)
        if scale is not None:
            file.scales = (scale,) * n_bands
        file.update_tags(
            item_id=row.item_id,
            datetime=row.datetime.isoformat(),
            location_id=row.location_id,
            season=row.season,
            dn_offset_removed=str(row.dn_offset),
        )


WRITERS = {"native": export_native, "published": export_published}


def export(path: Path, index: pd.DataFrame, folder: Path, *, layout: str) -> list[Path]:
    """Export patches of a store.

    Parameters
    ----------
    path : the store's folder
    index : rows of table `patches`, all with a patch
    folder : where the files go
    layout : one of `LAYOUTS`

    Returns
    -------
    the files written

    Raises
    ------
    ValueError
        If two seasons of a location would get the same name in the published layout.
    """
    if layout == "published":
        names = index["datetime"].dt.strftime("%Y%m%d_T") + index["mgrs_tile"]
        twice = index[pd.DataFrame({"location": index["location"], "name": names}).duplicated(keep=False)]
        twice = twice[twice.groupby("location")["item_id"].transform("nunique") > 1]
        if len(twice):
            raise ValueError(
                f"location {twice['location_id'].iloc[0]!r} has two scenes of the same day and tile, which "
                "the published layout gives the same name. Choose seasons with --seasons."
            )
    dataset, files = store.open_store(path), []
    for row in index.itertuples():
        patch = dataset.isel(location=row.location).sel(season=row.season).load()
        files += WRITERS[layout](patch, row, folder)
    return files


def command(arguments: list[str]) -> int:
    """Export patches from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.export", description="Write patches as GeoTIFFs."
    )
    parser.add_argument("store", type=Path, help="folder patches.zarr of a dataset")
    parser.add_argument("--to", type=Path, required=True, help="folder of the files")
    parser.add_argument("--layout", choices=LAYOUTS, default="native")
    parser.add_argument("--locations", nargs="+", default=[], metavar="ID", help="default: all")
    parser.add_argument("--seasons", nargs="+", default=[], metavar="LABEL", help="default: all")
    options = parser.parse_args(arguments)
    try:
        index = tables.read_table(options.store.resolve().parent / "patches.parquet", "patches")
        index = chosen_patches(index, options.locations, options.seasons)
        files = export(options.store, index, options.to, layout=options.layout)
    except (FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{len(files)} files of {len(index)} patches below {options.to}\n")
    return 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))

"""Miniatures of published archives in their true formats: folders, names, tables, band order.

The pixels are made: band `B` of sample `i` is `level(B, kind)` plus a little noise, where `kind` is what
the label says, so that a probe can learn it. No pixel or label of the archives is in here.
"""

import calendar
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import rasterio
from PIL import Image
from rasterio.transform import from_origin

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
TREESAT_ORDER = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")
BIOMASS_ORDER = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
SIDE_PX = dict.fromkeys(BANDS, 60) | dict.fromkeys(("B02", "B03", "B04", "B08"), 120) | {"B01": 20, "B09": 20}


def level(band: str, kind: int) -> int:
    """DN of a band where the ground is of a kind; no two bands have the same."""
    return 200 + 150 * BANDS.index(band) + 900 * kind * (band in ("B08", "B8A", "B03"))


def ground(band: str, kind: int, side: int, seed: int) -> np.ndarray:
    """Pixels of one band."""
    rng = np.random.default_rng([seed, BANDS.index(band)])
    return (level(band, kind) + rng.integers(-20, 21, (side, side))).astype(np.uint16)


def write_tif(path, values, *, epsg=None, corner=(0, 0), pixel_m=10, descriptions=None):
    """Write a GeoTIFF (band, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crs": f"EPSG:{epsg}", "transform": from_origin(*corner, pixel_m, pixel_m)} if epsg else {}
    values = np.atleast_3d(values.T).T if values.ndim == 2 else values
    n, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=n, height=height, width=width, dtype=values.dtype,
        compress="deflate", zlevel=1, **options,
    ) as file:  # fmt: skip
        file.write(values)
        for i, text in enumerate(descriptions or (), 1):
            file.set_band_description(i, text)


def corner_of(i: int) -> tuple[int, int]:
    """Upper left corner of sample `i`: rows of eight, 20 km apart."""
    return 400_020 + 20_000 * (i % 8), 5_600_040 - 20_000 * (i // 8)


def make_bigearthnet(folder: Path, n: int = 12) -> pd.DataFrame:
    """Version 1: patches, label files, split lists. One patch is in no list, one has no class of the 19."""
    kinds = {0: ["Coniferous forest", "Peatbogs"], 1: ["Non-irrigated arable land", "Pastures", "Airports"]}
    rows = []
    for i in range(n):
        name = f"S2A_MSIL2A_20170617T113321_{i}_{10 + i}"
        x, y = corner_of(i)
        for band in BANDS:
            path = folder / "BigEarthNet-v1.0" / name / f"{name}_{band}.tif"
            side = SIDE_PX[band]
            write_tif(path, ground(band, i % 2, side, i), epsg=32629, corner=(x, y), pixel_m=1200 // side)
        labels = ["Burnt areas"] if i == n - 1 else kinds[i % 2]
        metadata = {
            "labels": labels,
            "coordinates": {"ulx": x, "uly": y, "lrx": x + 1200, "lry": y - 1200},
            "projection": rasterio.crs.CRS.from_epsg(32629).to_wkt(),
            "tile_source": "made",
            "acquisition_date": "2017-06-17 11:33:21",
        }
        (folder / "BigEarthNet-v1.0" / name / f"{name}_labels_metadata.json").write_text(json.dumps(metadata))
        part = "" if i == 0 else ("train", "train", "val", "test")[i % 4]
        rows.append({"name": name, "kind": i % 2, "part": part})
    truth = pd.DataFrame(rows)
    for part in ("train", "val", "test"):
        names = truth["name"][truth["part"] == part]
        (folder / f"{part}.csv").write_text("".join(f"{name},S1_of_{name}\n" for name in names))
    return truth


def make_bigearthnet_v2(folder: Path, n: int = 12) -> pd.DataFrame:
    """Version 2: a folder per tile, one table of labels and splits."""
    tile, rows = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", []
    for i in range(n):
        name = f"{tile}_{i:02d}_5"
        for band in BANDS:
            side = SIDE_PX[band]
            path = folder / "BigEarthNet-S2" / tile / name / f"{name}_{band}.tif"
            write_tif(
                path, ground(band, i % 2, side, i), epsg=32633, corner=corner_of(i), pixel_m=1200 // side
            )
        rows.append(
            {
                "patch_id": name,
                "labels": [["Mixed forest"], ["Urban fabric", "Marine waters"]][i % 2],
                "split": ("train", "train", "test", "validation", "train", "test")[i % 6],
                "country": "Austria",
                "contains_seasonal_snow": False,
                "contains_cloud_or_shadow": False,
            }
        )
    table = pd.DataFrame(rows)
    table.to_parquet(folder / "metadata.parquet")
    return table


def make_treesatai(folder: Path, n: int = 24) -> pd.DataFrame:
    """Patches of 6 × 6 pixels in one file of twelve bands, labels with shares of the area, two lists."""
    rows, labels = [], {}
    for i in range(n):
        kind = i % 2
        name = f"{('Abies_alba', 'Quercus_robur')[kind]}_{i % 3}_{i}_WEFL_NLF.tif"
        values = np.stack([ground(band, kind, 6, i) for band in TREESAT_ORDER])
        write_tif(folder / "s2" / "60m" / name, values, epsg=32632, corner=corner_of(i))
        labels[name] = [[("Abies", "Quercus")[kind], 0.9], ["Cleared", 0.04]]
        rows.append({"name": name, "kind": kind, "part": "test" if i % 6 in (4, 5) else "train"})
    truth = pd.DataFrame(rows)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(labels))
    for part in ("train", "test"):
        names = truth["name"][truth["part"] == part]
        (folder / f"{part}_filenames.lst").write_text("\n".join(names) + "\n")
    return truth


MONTHS = [*calendar.month_name[9:], *calendar.month_name[1:9]]


def make_biomassters(folder: Path, n: int = 12) -> pd.DataFrame:
    """Chips of two splits, months counted from September, biomass maps; some images were not published."""
    rows, truth = [], []
    for i in range(n):
        chip, split, kind = f"{i:02d}a7f9b3", "test" if i % 3 == 2 else "train", i % 2
        biomass = np.full((256, 256), 30.0 + 100 * kind, np.float32)
        biomass[: 64 * (1 + kind)] = 900.0  # beyond the last edge
        write_tif(folder / f"{split}_agbm" / f"{chip}_agbm.tif", biomass)
        for satellite, month in (("S1", 10), ("S2", 10), ("S2", 4)):
            if month == 4 and i > 1:
                continue
            name = f"{chip}_{satellite}_{month:02d}.tif"
            if satellite == "S2":
                bands = [ground(band, kind, 256, 100 * i + month) for band in BIOMASS_ORDER]
                write_tif(folder / f"{split}_features" / name, np.stack([*bands, np.full_like(bands[0], 7)]))
            rows.append(
                {
                    "filename": name,
                    "chip_id": chip,
                    "satellite": satellite,
                    "split": split,
                    "month": MONTHS[month],
                    "corresponding_agbm": f"{chip}_agbm.tif",
                }
            )
        truth.append({"chip": chip, "kind": kind, "split": split})
    pd.DataFrame(rows).to_csv(folder / "The_BioMassters_-_features_metadata.csv.csv", index=False)
    return pd.DataFrame(truth)


def encode_picture(dn: np.ndarray) -> np.ndarray:
    """What the publisher of GeoLifeCLEF made of DN: 8 bits with a power of 1 / 2.5."""
    return np.rint(255 * (np.clip(dn, 0, 10_000) / 10_000) ** (1 / 2.5)).astype(np.uint8)


def make_geolifeclef(folder: Path, n: int = 16, n_blind: int = 4) -> pd.DataFrame:
    """Surveys of a few species each, a blind test, pictures of three and of one channel."""
    rows, blind, truth = [], [], []
    for i in range(n + n_blind):
        patch, kind = 3_010_000 + 137 * i, i % 2
        lon, lat = 2.0 + 0.5 * (i % 5), 43.0 + 0.5 * (i // 5)
        name = str(patch)
        for kind_of_picture, bands in (("rgb", ("B04", "B03", "B02")), ("nir", ("B08",))):
            pixels = np.stack([encode_picture(ground(band, kind, 128, i)) for band in bands], axis=-1)
            path = folder / "SatelliteImages" / kind_of_picture / name[-2:] / name[-4:-2] / f"{name}.jpeg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.squeeze()).save(path, quality=95)
        place = {"lon": lon, "lat": lat, "patchID": patch, "dayOfYear": 150, "year": 2020}
        if i < n:
            rows += [{**place, "glcID": len(rows), "speciesId": code} for code in ((7, 40), (40, 905))[kind]]
        else:
            blind.append({"Id": i - n + 1, **place})
        truth.append({"patch": patch, "kind": kind, "split": "train" if i < n else "blind"})
    (folder / "Presence_Absence_surveys").mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows + rows[:1])  # a species seen twice at a place is one species
    table.to_csv(folder / "Presence_Absence_surveys" / "Presences_Absences_train.csv", sep=";")
    (folder / "For_submission").mkdir()
    pd.DataFrame(blind).to_csv(folder / "For_submission" / "test_blind.csv", sep=";", index=False)
    return pd.DataFrame(truth)


def pack(source: Path, target: Path) -> None:
    """Pack a folder's files into a zip, or a tar, compressed as its name says."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(source))
        return
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for path in files:
            archive.add(path, path.relative_to(source))
    compress = {
        ".gz": lambda content: gzip.compress(content, 1),
        ".zst": lambda c: pa.compress(c, "zstd", asbytes=True),
    }
    target.write_bytes(compress.get(target.suffix, bytes)(plain.getvalue()))

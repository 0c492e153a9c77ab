"""Reading the product's own files: bands, years, fill values, what is missing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
from pyhdf.HDF import HC, HDF
from pyhdf.SD import SD, SDC
from pyhdf.V import V  # noqa: F401  gives HDF its vgstart
from rasterio.transform import Affine

from workflow_scripts import read_mcd12q2
from workflow_scripts.core import grid, tables
from workflow_scripts.core.seasons import TRANSITIONS
from workflow_scripts.read_mcd12q2 import BANDS, FILL, read_cycles, year_of

TILE, N = "h18v04", 240
LAYERS = list(BANDS)
LOCATIONS = pd.DataFrame(
    {"location_id": ["b", "a", "far"], "lon": [10.0, 9.0, 100.0], "lat": [45.0, 44.0, 10.0]}
)


def day(text):
    return int(np.datetime64(text, "D").astype(int))


def layer_values(year, cycle, name):
    """What a made file holds: dates 20 days apart, from 1 April or 1 August."""
    if name in BANDS and BANDS[name] in TRANSITIONS:
        return day(f"{year}-{'04' if cycle == 1 else '08'}-01") + 20 * TRANSITIONS.index(BANDS[name])
    return {"EVI_Amplitude": 4200 - 1000 * cycle, "EVI_Minimum": 1100, "QA_Overall": 1, "QA_Detailed": 5461}[
        name
    ]


def write(path, bands, crs=grid.MODIS_CRS):
    """A file of one tile at 10 km pixels; bands: name → value or array."""
    left, top = grid.modis_tile_origin(TILE)
    pixel = grid.MODIS_TILE_M / N
    affine = (
        Affine(pixel, 0, left, 0, -pixel, top) if crs == grid.MODIS_CRS else Affine(0.05, 0, 0, 0, -0.05, 50)
    )
    with rasterio.open(
        path, "w", driver="GTiff", width=N, height=N, count=len(bands), dtype="int16", crs=crs, transform=affine,
        nodata=FILL,
    ) as file:  # fmt: skip
        for i, (name, value) in enumerate(bands.items(), 1):
            file.write(np.broadcast_to(np.asarray(value, np.int16), (N, N)), i)
            file.set_band_description(i, name)
    return path


def bands_of(year, cycles=(1, 2), layers=LAYERS):
    return {f"{name}_{cycle}": layer_values(year, cycle, name) for cycle in cycles for name in layers}


@pytest.mark.parametrize("crs", [grid.MODIS_CRS, "EPSG:4326"])
def test_dates_amplitude_and_quality_of_a_file_with_named_bands(tmp_path, crs):
    path = write(tmp_path / "MCD12Q2.A2019001.h18v04.061.2020.tif", bands_of(2019), crs)
    cycles = read_cycles([path], LOCATIONS)
    assert cycles[["location_id", "year", "cycle"]].to_numpy().tolist() == [
        ["b", 2019, 1], ["b", 2019, 2], ["a", 2019, 1], ["a", 2019, 2],
    ]  # fmt: skip
    first = cycles.iloc[0]
    assert [first[name] for name in TRANSITIONS] == list(pd.date_range("2019-04-01", periods=7, freq="20D"))
    assert first["amplitude"] == pytest.approx(0.32) and first["minimum"] == pytest.approx(0.11)
    assert first["qa"] == 1 and first["qa_detailed"] == 5461
    assert np.isnan(first["r2"]) and first["n_observations"] == -1


# ---- HDF4 as distributed -----------------------------------------------------------------------

HDF_LAYERS = [
    "NumCycles", "Greenup", "MidGreenup", "Maturity", "Peak", "Senescence", "MidGreendown", "Dormancy",
    "EVI_Minimum", "EVI_Amplitude", "EVI_Area", "QA_Detailed", "QA_Overall",
]  # fmt: skip
HDF_NAME = "MCD12Q2.A2019001.h18v04.061.2022011000000.hdf"


def grid_text(n, *, projection="GCTP_SNSOID", tile=TILE):
    """StructMetadata.0 of a product file."""
    left, top = grid.modis_tile_origin(tile)
    right, bottom = left + grid.MODIS_TILE_M, top - grid.MODIS_TILE_M
    modes = ("", ',"Num_Modes"')
    fields = "".join(
        f'\t\t\tOBJECT=DataField_{i}\n\t\t\t\tDataFieldName="{name}"\n\t\t\t\tDataType=DFNT_INT16\n'
        f'\t\t\t\tDimList=("YDim","XDim"{modes[name != "NumCycles"]})\n'
        f"\t\t\t\tCompressionType=HDFE_COMP_DEFLATE\n\t\t\t\tDeflateLevel=2\n\t\t\tEND_OBJECT=DataField_{i}\n"
        for i, name in enumerate(HDF_LAYERS, 1)
    )
    return (
        "GROUP=SwathStructure\nEND_GROUP=SwathStructure\nGROUP=GridStructure\n\tGROUP=GRID_1\n"
        f'\t\tGridName="MCD12Q2"\n\t\tXDim={n}\n\t\tYDim={n}\n'
        f"\t\tUpperLeftPointMtrs=({left:.6f},{top:.6f})\n\t\tLowerRightMtrs=({right:.6f},{bottom:.6f})\n"
        f"\t\tProjection={projection}\n\t\tProjParams=(6371007.181000,0,0,0,0,0,0,0,0,0,0,0,0)\n"
        "\t\tSphereCode=-1\n\t\tGridOrigin=HDFE_GD_UL\n\t\tGROUP=Dimension\n\t\t\tOBJECT=Dimension_1\n"
        '\t\t\t\tDimensionName="Num_Modes"\n\t\t\t\tSize=2\n\t\t\tEND_OBJECT=Dimension_1\n\t\tEND_GROUP=Dimension\n'
        f"\t\tGROUP=DataField\n{fields}\t\tEND_GROUP=DataField\n\t\tGROUP=MergedFields\n\t\tEND_GROUP=MergedFields\n"
        "\tEND_GROUP=GRID_1\nEND_GROUP=GridStructure\nGROUP=PointStructure\nEND_GROUP=PointStructure\nEND\n"
    )


def write_hdf(path, *, n=N, year=2019, changed=None, layers=HDF_LAYERS, text=None):
    """A file as LP DAAC distributes it: HDF-EOS2 grid, layers (YDim, XDim, Num_Modes), deflated, and vgroups.

    changed : {(layer, cycle): array (n, n)} in place of the usual values
    """
    file = SD(str(path), SDC.WRITE | SDC.CREATE | SDC.TRUNC)
    for name, content in {"HDFEOSVersion": "HDFEOS_V2.19", "StructMetadata.0": text or grid_text(n)}.items():
        file.attr(name).set(SDC.CHAR, content)
    references = []
    for name in layers:
        flat = name == "NumCycles"
        values = np.full((n, n) if flat else (n, n, 2), 2 if flat else FILL, np.int16)
        for cycle in () if flat else (1, 2):
            known = name in BANDS
            values[..., cycle - 1] = (changed or {}).get(
                (name, cycle), layer_values(year, cycle, name) if known else 300
            )
        layer = file.create(name, SDC.INT16, values.shape)
        for axis, dim in enumerate(("YDim", "XDim", "Num_Modes")[: values.ndim]):
            layer.dim(axis).setname(f"{dim}:MCD12Q2")
        layer.setcompress(SDC.COMP_DEFLATE, 2)
        layer.attr("long_name").set(SDC.CHAR, name)
        layer.attr("_FillValue").set(SDC.INT16, FILL)
        layer.attr("valid_range").set(SDC.INT16, [0, 32766])
        scale = {"EVI_Minimum": 1e-4, "EVI_Amplitude": 1e-4, "EVI_Area": 0.1}.get(name, 1.0)
        layer.attr("scale_factor").set(SDC.FLOAT64, scale)
        layer.attr("add_offset").set(SDC.FLOAT64, 0.0)
        layer[:] = values
        references.append(layer.ref())
        layer.endaccess()
    file.end()
    groups = HDF(str(path), HC.WRITE)
    tree = groups.vgstart()
    made = {}
    for name, kind in (
        ("MCD12Q2", "GRID"),
        ("Data Fields", "GRID Vgroup"),
        ("Grid Attributes", "GRID Vgroup"),
    ):
        made[name] = tree.create(name)
        made[name]._class = kind
    for reference in references:
        made["Data Fields"].add(HC.DFTAG_NDG, reference)
    for name in ("Data Fields", "Grid Attributes"):
        made["MCD12Q2"].insert(made[name])
    for group in made.values():
        group.detach()
    tree.end()
    groups.close()
    return path


def test_hdf4_at_its_real_size_gives_the_pixels_of_the_locations(tmp_path):
    size = 2400
    row, column = (grid.modis_pixel(LOCATIONS["lon"], LOCATIONS["lat"], size)[i] for i in (1, 2))
    greenup = np.full((size, size), FILL, np.int16)
    greenup[row[0], column[0]], greenup[row[1], column[1]] = day("2019-03-03"), day("2019-03-07")
    amplitude = np.full((size, size), 1, np.int16)
    amplitude[row[0], column[0]] = 2345
    changed = {("Greenup", 1): greenup, ("EVI_Amplitude", 1): amplitude, ("Greenup", 2): FILL}
    path = write_hdf(tmp_path / HDF_NAME, n=size, changed=changed)
    cycles = read_cycles([path], LOCATIONS)
    assert cycles[["location_id", "year", "cycle"]].to_numpy().tolist() == [["b", 2019, 1], ["a", 2019, 1]]
    assert cycles["greenup"].dt.strftime("%m-%d").tolist() == ["03-03", "03-07"]
    assert cycles["dormancy"].eq(pd.Timestamp("2019-07-30")).all()
    assert cycles["amplitude"].tolist() == pytest.approx([0.2345, 0.0001])
    assert cycles["minimum"].tolist() == pytest.approx([0.11, 0.11])
    assert cycles["qa"].eq(1).all() and cycles["qa_detailed"].eq(5461).all()


def test_hdf4_and_geotiff_of_the_same_product_give_the_same_table(tmp_path):
    hdf = [write_hdf(tmp_path / HDF_NAME.replace("A2019", f"A{y}"), year=y) for y in (2018, 2019)]
    tif = [write(tmp_path / f"p_{year}.tif", bands_of(year)) for year in (2018, 2019)]
    table = read_cycles(hdf, LOCATIONS)
    assert len(table) == 8
    pd.testing.assert_frame_equal(table, read_cycles(tif, LOCATIONS))


def test_hdf4_that_cannot_be_used(tmp_path):
    path = tmp_path / HDF_NAME
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as HDF4"):
        read_cycles([path], LOCATIONS)
    write_hdf(path, layers=["NumCycles"])
    with pytest.raises(ValueError, match="none of 1 files holds a band of MCD12Q2"):
        read_cycles([path], LOCATIONS)
    write_hdf(path, text=grid_text(N, projection="GCTP_GEO"))
    with pytest.raises(ValueError, match="not sinusoidal"):
        read_cycles([path], LOCATIONS)
    write_hdf(path, text="GROUP=SwathStructure")
    with pytest.raises(ValueError, match="no HDF-EOS grid"):
        read_cycles([path], LOCATIONS)
    write_hdf(path)
    content = bytearray(path.read_bytes())
    stream = content.rfind(b"\x78\x5e")  # the last layer as zlib writes it
    content[stream + 2 : stream + 40] = bytes(38)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be used.*Fetch it again"):
        read_cycles([path], LOCATIONS)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cannot be read as HDF4|cannot be used"):
        read_cycles([path], LOCATIONS)


def test_one_file_per_layer(tmp_path):
    needed = [name for name in LAYERS if BANDS[name] not in read_mcd12q2.OPTIONAL]
    paths = []
    for year in (2018, 2019):
        for name, value in bands_of(year, (1,), needed).items():
            path = write(tmp_path / f"MCD12Q2.A{year}001.h18v04.061.2020123101010.{name}.tif", {"": value})
            paths.append(path)
    cycles = read_cycles(paths[::-1], LOCATIONS)
    assert cycles["year"].tolist() == [2018, 2019] * 2 and (cycles["cycle"] == 1).all()
    assert (cycles["qa"] == -1).all() and cycles["minimum"].isna().all()
    with pytest.raises(ValueError, match=r"year 2019, cycle 1: no file with the bands \['Greenup_1'\]"):
        read_cycles(
            [p for p in paths if "2019001.h18v04.061.2020123101010.Greenup_1" not in p.name], LOCATIONS
        )


def test_fill_values_and_incomplete_cycles(tmp_path, caplog):
    bands = bands_of(2019)
    row, column = (grid.modis_pixel(LOCATIONS["lon"], LOCATIONS["lat"], N)[i] for i in (1, 2))
    bands["Dormancy_1"] = np.full((N, N), bands["Dormancy_1"])
    bands["Dormancy_1"][row[0], column[0]] = FILL
    for name in LAYERS:
        bands[f"{name}_2"] = FILL
    cycles = read_cycles([write(tmp_path / "x_2019.tif", bands)], LOCATIONS)
    assert cycles["location_id"].tolist() == ["a"]
    assert "2019, cycle 1: 1 of 2 cycles lack a date" in caplog.text


def test_the_newest_production_counts(tmp_path):
    old = {name: value - 5 if "EVI" not in name else value for name, value in bands_of(2019, (1,)).items()}
    files = [
        write(tmp_path / "MCD12Q2.A2019001.h18v04.061.2022011000000.tif", bands_of(2019, (1,))),
        write(tmp_path / "MCD12Q2.A2019001.h18v04.061.2021011000000.tif", old),
    ]
    assert (read_cycles(files, LOCATIONS)["greenup"] == "2019-04-01").all()


def test_years_of_names():
    assert year_of("MCD12Q2.A2019001.h18v04.061.2022010.hdf") == 2019
    assert year_of("phenology_2015.tif") == 2015
    for name in ("phenology.tif", "p_2015_2016.tif"):
        with pytest.raises(ValueError, match="no year can be told"):
            year_of(name)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match=r"none of 1 files holds a band of MCD12Q2"):
        read_cycles([write(tmp_path / "x_2019.tif", {"ndvi": 3})], LOCATIONS)
    (tmp_path / "MCD12Q2.A2019001.h18v04.061.tif").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as a raster"):
        read_cycles([tmp_path / "MCD12Q2.A2019001.h18v04.061.tif"], LOCATIONS)


def test_main_writes_the_table(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(read_mcd12q2, "read_table", lambda *_: LOCATIONS)
    files = [str(write(tmp_path / f"p_{year}.tif", bands_of(year))) for year in (2018, 2019)]
    job = SimpleNamespace(
        input=SimpleNamespace(locations="l", files=files),
        output=SimpleNamespace(cycles=tmp_path / "c.parquet"),
    )
    read_mcd12q2.main(job)
    assert len(tables.read_table(tmp_path / "c.parquet", "cycles")) == 8
    assert "1 of 3 locations have no cycle" in caplog.text

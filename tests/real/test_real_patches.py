"""Real Sentinel-2 pixels and real STAC items through the stages of scenes and patches."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely

from workflow_scripts import (
    create_store,
    index_patches,
    retrieve_patches,
    search_tile,
    select_scenes,
    verify_store,
)
from workflow_scripts.core import bands, grid, network, stac, store, tables
from workflow_scripts.core import items as items_of
from workflow_scripts.core.patches import PARTS
from workflow_scripts.selection import matching, published

pytestmark = pytest.mark.real
logger = logging.getLogger(__name__)
SIZE_M = 1200
WINDOWS = {"spring": (60, 152), "summer": (152, 244), "autumn": (244, 335), "winter": (335, 60)}


def patch_items(folder):
    """Present each folder of GeoTIFFs as an item of a plain catalog, without classification and tile."""
    items = []
    for place in sorted(folder.iterdir()):
        facts = json.loads(next(place.glob("*.json")).read_text())
        with rasterio.open(place / f"{place.name}_B02.tif") as file:
            epsg, box = file.crs.to_epsg(), file.bounds
        corners = np.array(shapely.box(*box).exterior.coords)
        ring = np.column_stack(grid.unproject(*corners.T, epsg)).tolist()
        day = pd.Timestamp(facts["acquisition_date"])
        assets = {band: {"href": f"{place}/{place.name}_{band}.tif"} for band in bands.ALL_BANDS}
        items.append(
            {
                "type": "Feature",
                "id": place.name,
                "collection": "bigearthnet",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "assets": assets,
                # processed in 2017 and 2018, years before offsets were added
                "properties": {"datetime": day.isoformat() + "Z", "dn_offset": 0},
            }
        )
    return items


def locations_at(items):
    """Table of locations at the centers of the items."""
    centers = []
    for item in items:
        with rasterio.open(item["assets"]["B02"]["href"]) as file:
            box, epsg = file.bounds, file.crs.to_epsg()
        centers.append(grid.unproject((box.left + box.right) / 2, (box.bottom + box.top) / 2, epsg))
    lon, lat = np.array(centers).T
    frame = pd.DataFrame({"location_id": [f"B{i}" for i in range(len(items))], "lon": lon, "lat": lat})
    frame = frame.assign(shard=0, eco_id=-1, biome_num=-1, inclusion_probability=1.0, is_mountain=False)
    frame = frame.assign(**dict.fromkeys(("eco_name", "biome_name", "realm", "stratum", "split"), ""))
    frame = frame.assign(distance_to_evaluation_km=np.nan)
    return tables.gpd.GeoDataFrame(frame, geometry=tables.gpd.points_from_xy(lon, lat), crs=4326)


def windows_of(locations):
    rows = [
        {
            "location_id": location_id,
            "season": season,
            "start_doy": start,
            "end_doy": end,
            "target_doy": (start + (end - start) % 365.25 / 2 - 1) % 365.25 + 1,
            "length_days": (end - start) % 365.25,
            "source": "calendar",
            "donor_id": "",
            "n_years": 0,
        }
        for location_id in locations["location_id"]
        for season, (start, end) in WINDOWS.items()
    ]
    frame = pd.DataFrame(rows).assign(donor_distance_km=np.nan, spread_days=np.nan, sunlit_days=30.0)
    return frame.assign(start_date=pd.NaT, end_date=pd.NaT, target_date=pd.NaT)


def job(inputs, outputs, params, **wildcards):
    spaces = (SimpleNamespace(**part) for part in (inputs, outputs, params))
    source, target, options = spaces
    return SimpleNamespace(
        input=source,
        output=target,
        params=options,
        wildcards=SimpleNamespace(dataset="bigearthnet", **wildcards),
        threads=1,
    )


@pytest.fixture(scope="module")
def retrieved(real_data, tmp_path_factory):
    """Run all stages on the BigEarthNet patches; gives the folder and the items."""
    folder = tmp_path_factory.mktemp("bigearthnet")
    items = patch_items(real_data / "sentinel2" / "bigearthnet_example")
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    locations = locations_at(items)
    tables.write_table(locations, folder / "locations.parquet", "locations")
    tables.write_table(windows_of(locations), folder / "seasons.parquet", "seasons")
    settings = {
        "source": "catalog",
        "catalog": "bigearthnet",
        "failover": None,
        "years": [2017, 2018],
        "max_cloud_cover": 20,
        "max_sun_zenith": 85,
        "choice": "clearest",
        "candidates": 5,
        "second_pass": True,
    }
    catalog = {"type": "static", "path": str(folder / "items.json"), "conventions": "plain"}
    tiles = sorted(
        {t for found in grid.mgrs_tiles(locations["lon"], locations["lat"], SIZE_M) for t in found}
    )
    common = {"locations": folder / "locations.parquet", "seasons": folder / "seasons.parquet"}
    for tile in tiles:
        asked = {"catalogs": {"bigearthnet": catalog}, "years": settings["years"]}
        search_tile.main(job({}, {"found": folder / f"items/{tile}.parquet"}, asked, tile=tile))
    select_scenes.main(
        job(
            {**common, "found": [folder / f"items/{tile}.parquet" for tile in tiles]},
            {"scenes": folder / "scenes/0.parquet"},
            {"settings": settings, "seasons": [], "size_m": SIZE_M},
            shard="0",
        )
    )
    metadata = folder / "patches.zarr/zarr.json"
    layout = {"seasons": list(WINDOWS), "per_shard": 4, "size_m": SIZE_M, "codec": "blosc-lz4-bitshuffle"}
    create_store.main(job(common, {"metadata": metadata}, layout))
    limits = {"max_cloud_fraction": 0.2, "max_nodata_fraction": 0.0}
    retrieve_patches.main(
        job(
            {"scenes": folder / "scenes/0.parquet", "store": metadata},
            {"retrieved": folder / "retrieved/0.parquet"},
            {"reader": "windows", "catalogs": {"bigearthnet": {"conventions": "plain"}}, **limits},
            shard="0",
        )
    )
    index_patches.main(
        job(
            {"locations": common["locations"], "retrieved": [folder / "retrieved/0.parquet"]},
            {"patches": folder / "patches.parquet"},
            {"size_m": SIZE_M, "scenes": settings},
        )
    )
    return folder, items


def test_every_stored_value_is_the_source_pixel(retrieved):
    folder, items = retrieved
    index = tables.read_table(folder / "patches.parquet", "patches")
    there = index[index["status"] == "ok"]
    assert sorted(there["item_id"]) == sorted(item["id"] for item in items)
    assert there["cloud_fraction"].isna().all() and (there["valid_fraction"] == 1).all()
    dataset = store.open_store(folder / "patches.zarr").load()
    n_values = 0
    for row in there.itertuples():
        patch = dataset.isel(location=row.location).sel(season=row.season)
        item = next(item for item in items if item["id"] == row.item_id)
        for part in ("dn10", "dn20", "dn60"):
            for i, band in enumerate(PARTS[part]):
                with rasterio.open(item["assets"][band]["href"]) as file:
                    source = file.read(1)
                    assert (file.transform.c, file.transform.f) == (row.origin_x, row.origin_y)
                n = len(source)
                np.testing.assert_array_equal(patch[part].values[i, :n, :n], source)
                assert not patch[part].values[i, n:].any() and not patch[part].values[i, :, n:].any()
                n_values += source.size
        assert (patch["origin60_x"], patch["origin60_y"]) == (row.origin_x, row.origin_y)
    logger.info("%d patches, %d values equal to their source pixels", len(there), n_values)
    assert n_values == 4 * (4 * 120**2 + 6 * 60**2 + 2 * 20**2)


def test_the_store_verifies_against_its_source(retrieved):
    folder, _ = retrieved
    index = tables.read_table(folder / "patches.parquet", "patches")
    locations = tables.read_table(folder / "locations.parquet", "locations", ["location_id", "lon", "lat"])
    result = verify_store.verify(folder / "patches.zarr", index, locations)
    assert result["is_good"] and result["n_patches_without_scl"] == 4
    scenes = tables.read_table(folder / "scenes/0.parquet", "scenes")
    assert list(verify_store.reread(folder / "patches.zarr", index, scenes, share=1, seed=0)) == []


def test_quicklooks_look_like_land(retrieved):
    """True color and NDVI as pictures; vegetation in June is greener than snow in February."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder, _ = retrieved
    dataset = store.open_store(folder / "patches.zarr").load()
    index = tables.read_table(folder / "patches.parquet", "patches").query("status == 'ok'")
    figure, axes = pyplot.subplots(2, len(index), figsize=(3 * len(index), 6))
    means = {}
    for column, row in enumerate(index.itertuples()):
        patch = dataset.isel(location=[row.location]).sel(season=[row.season])
        color = store.reflectance(patch, ["B04", "B03", "B02"]).values.squeeze()
        ndvi = store.ndvi10(patch).values.squeeze()
        white = np.percentile(color, 99)
        axes[0, column].imshow(np.clip(color / white, 0, 1).transpose(1, 2, 0))
        axes[0, column].set_title(f"{row.datetime:%Y-%m-%d}, white {white:.2f}")
        axes[1, column].imshow(ndvi, vmin=0, vmax=1, cmap="YlGn")
        axes[1, column].set_title(f"mean NDVI {ndvi.mean():.2f}")
        means[str(row.datetime)[:7]] = max(ndvi.mean(), means.get(str(row.datetime)[:7], -1))
        for axis in axes[:, column]:
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(folder / "quicklooks.png", dpi=70)
    logger.info("quicklooks in %s; mean NDVI by month %s", folder / "quicklooks.png", means)
    assert means["2017-06"] > 0.5 > means["2018-02"]


def real_items(real_data):
    """All real items of Sentinel-2 L2A with the convention of their catalog."""
    sources = {
        "planetary_computer": lambda item: "planetary-computer",
        "earth_search": lambda item: "earth-search-c1" if "c1" in item["collection"] else "earth-search",
        "stactools_sentinel2": lambda item: "planetary-computer",  # ESA's own pixels, offset by baseline
    }
    for folder, convention in sources.items():
        for path in sorted((real_data / "stac" / folder).glob("*.json")):
            item = json.loads(path.read_text())
            yield item, convention(item)
    for path in sorted((real_data / "sentinel2" / "stac_items_earthsearch").rglob("*.json")):
        item = json.loads(path.read_text())
        if item.get("type") == "Feature":
            yield item, "earth-search"


def test_offset_decisions_on_real_items(real_data):
    rows = []
    for item, convention in real_items(real_data):
        offset, source = bands.dn_offset(item["properties"], convention)
        day = item["properties"]["datetime"][:10]
        rows.append(
            (
                convention,
                item["properties"].get("s2:processing_baseline", ""),
                offset,
                source,
                day,
                item["id"],
            )
        )
    table = pd.DataFrame(rows, columns=["convention", "baseline", "offset", "source", "day", "item"])
    counted = table.groupby(["convention", "baseline", "offset", "source"]).size()
    logger.info("offset decisions on %d real items:\n%s", len(table), counted.to_string())
    by_baseline = table[table["convention"] == "planetary-computer"]
    is_new = by_baseline["baseline"].map(bands.baseline_number) >= 4
    assert (by_baseline["offset"] == np.where(is_new, 1000, 0)).all()
    # reprocessed later than its date suggests: the baseline decides, not the day
    reprocessed = by_baseline[(by_baseline["baseline"] == "05.00") & (by_baseline["day"] < "2022")]
    assert list(reprocessed["offset"]) == [1000]
    assert set(table.loc[table["convention"] == "earth-search-c1", "offset"]) == {1000}
    v1 = table[(table["convention"] == "earth-search") & (table["baseline"] != "")]
    assert set(v1["offset"]) == {0}
    assert set(table.loc[table["baseline"] == "", "offset"]) == {-1}, "no field says it: undecided"


def test_offsets_are_called_right_only_where_pixels_say_so(real_data):
    """The darkest pixels of a band: far below 1,000 no offset is left, just above it one may be."""
    seen = {}
    for folder, convention in (
        ("stac_33T_2023", "earth-search"),
        ("stac_01W_antimeridian_2023", "earth-search-c1"),
    ):
        path = real_data / "sentinel2" / folder / "catalog.json"
        catalog = {"type": "static", "path": str(path), "conventions": convention, "name": folder}
        tiles = ("33TWL", "33TWM") if "33T" in folder else ("01WCQ", "01WCR")
        for tile in tiles:
            for row in stac.search_items(
                catalog, tile=tile, years=(2023, 2023), kind="sentinel-2"
            ).itertuples():
                layers = []
                for band in ("B04", "SCL"):
                    with network.open_href(json.loads(row.hrefs)[band]) as file:
                        layers.append(file.read(1))
                # lossy files have 1 where there is nothing; the scene classification knows
                darkest = np.percentile(layers[0][(layers[0] > 1) & (layers[1] > 1)], 0.5)
                seen[row.item_id] = row.dn_offset, row.offset_source, darkest
    verdicts = {item["id"]: "undecided" for item, _ in real_items(real_data)}
    for item_id, (offset, source, darkest) in seen.items():
        # snow and cloud have no dark pixel: that tells nothing
        told = 0 if darkest < 900 else 1000 if darkest < 1400 else None
        verdicts[item_id] = "undecided" if told is None else "right" if offset == told else "wrong"
        logger.info(
            "%s: offset %s by %s, darkest B04 %.0f: %s", item_id, offset, source, darkest, verdicts[item_id]
        )
    counted = pd.Series(verdicts).value_counts()
    logger.info("offset decisions confirmed by pixels, of all real items: %s", counted.to_dict())
    assert counted.get("wrong", 0) == 0 and counted["right"] == 6 and len(seen) == 9


def test_published_ids_are_resolved_to_items(real_data):
    """Every id of the published tables, against items as both catalogs would name them; real items by their own id."""
    tables_of_ids = sorted((real_data / "labels").glob("*.csv"))
    ids = pd.concat([pd.read_csv(path, dtype=str) for path in tables_of_ids])["image_id_1"].dropna()
    parsed = published.parse_image_ids(ids.reset_index(drop=True))
    assert parsed["start"].notna().all() and (parsed["mgrs_tile"] != "").all() and len(parsed) > 100
    rows = []
    for i, (image_id, (start, second, tile)) in enumerate(
        zip(ids, parsed.itertuples(index=False), strict=True)
    ):
        take, strip = (f"{moment:%Y%m%dT%H%M%S}" for moment in (start, second))
        names = {
            "computer": {"id": f"S2A_MSIL2A_{take}_R094_T{tile}_20201007T000000"},
            "search": {
                "id": f"S2A_{tile.lstrip('0')}_{take[:8]}_0_L2A",
                "s2:datatake_id": f"GS2A_{take}_000001_N05.09",
                "s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_2APS_20230101T000000_S{strip}_N05.09",
            },
        }[("computer", "search")[i % 2]]
        item = {
            "id": names.pop("id"),
            "base": "",
            "assets": {},
            "geometry": {"type": "Point", "coordinates": [0, 0]},
        }
        item["properties"] = {"grid:code": f"MGRS-{tile}", **names}
        row = items_of.sentinel2_row(item, {"conventions": "earth-search"}, start + pd.Timedelta(minutes=3))
        rows.append(row | {"image_id": image_id})
    wanted = pd.DataFrame({"image_id": ids.drop_duplicates().to_numpy()})
    found = published.resolve(wanted, items_of.sentinel2_frame(rows))
    assert set(found["image_id"]) == set(wanted["image_id"])
    named = [rows[item]["image_id"] for item in found["item"]]
    assert (
        published.parse_image_ids(pd.Series(named))["start"]
        == published.parse_image_ids(found["image_id"])["start"]
    ).all()
    # a real item is found by the id Earth Engine would give it, and no other of the real items
    real = {item["id"]: item for item, _ in real_items(real_data) if item["properties"].get("s2:datatake_id")}
    frame = items_of.sentinel2_frame(
        [
            items_of.sentinel2_row(
                {**item, "base": ""}, {"conventions": "earth-search"}, items_of.moment_of(item["properties"])
            )
            for item in real.values()
        ]
    )
    stamps = frame["datatake"].str.extract(r"_(\d{8}T\d{6})")[0]
    wanted = pd.DataFrame({"image_id": stamps + "_" + stamps + "_T" + frame["mgrs_tile"]}).drop_duplicates()
    found = published.resolve(wanted, frame)
    assert set(found["item"]) == set(range(len(frame)))
    assert (frame["mgrs_tile"].to_numpy()[found["item"]] == found["image_id"].str[-5:]).all()
    logger.info("%d published ids and %d real items resolved", len(ids), len(frame))


def test_real_items_become_rows(real_data):
    """Tile, grid, sun and time of every item are understood."""
    for item, convention in real_items(real_data):
        row = items_of.sentinel2_row(
            {**item, "base": "x/y.json"}, {"conventions": convention}, pd.Timestamp(0)
        )
        assert row["mgrs_tile"] in item["id"] or row["mgrs_tile"].lstrip("0") in item["id"], item["id"]
        epsg, xmin, _, _, ymax = grid.mgrs_tile_bounds(row["mgrs_tile"])
        assert (row["epsg"], row["origin_x"], row["origin_y"]) == (epsg, xmin, ymax), item["id"]
        if item["properties"].get("view:sun_elevation") or item["properties"].get("s2:mean_solar_zenith"):
            assert 0 < row["sun_zenith"] < 90
        assert row["geometry"].is_valid and not np.isnan(row["cloud_cover"])


def test_real_static_catalog_of_overlapping_tiles(real_data):
    path = real_data / "sentinel2" / "stac_33T_2023" / "catalog.json"
    catalog = {"type": "static", "path": str(path), "conventions": "earth-search", "name": "33T"}
    found = {
        tile: stac.search_items(catalog, tile=tile, years=(2023, 2023), kind="sentinel-2")
        for tile in ("33TWL", "33TWM", "33TWN")
    }
    assert [len(items) for items in found.values()] == [3, 3, 0]
    items = pd.concat([found["33TWL"], found["33TWM"]], ignore_index=True)
    assert set(items["dn_offset"]) == {0}
    # a place in the overlap of both tiles: each data take counts once, from one of them
    _, xmin, _, _, ymax = grid.mgrs_tile_bounds("33TWL")
    lon, lat = grid.unproject(xmin + 50_000, ymax - 5_000, 32633)
    locations = pd.DataFrame(
        {"location_id": ["P"], "location": [0], "lon": [float(lon)], "lat": [float(lat)]}
    )
    settings = {"max_cloud_cover": 100, "max_sun_zenith": 85, "choice": "clearest", "candidates": 9}
    scenes = select_scenes.select(
        locations,
        windows_of(locations),
        items,
        settings={**settings, "second_pass": False, "max_nodata": 100},
        size_m=2560,
    )
    summer = scenes[scenes["season"] == "summer"]
    logger.info("overlap of 33TWL and 33TWM:\n%s", summer[["rank", "reason", "n", "item_id"]].to_string())
    is_kept = summer["rank"] >= 0
    assert is_kept.sum() + summer.loc[~is_kept, "n"].sum() == 6
    assert is_kept.sum() == 3 and summer.loc[is_kept, "datetime"].dt.date.is_unique
    assert dict(zip(summer.loc[~is_kept, "reason"], summer.loc[~is_kept, "n"], strict=True)) == {
        "duplicate": 3
    }


def test_real_scenes_at_the_antimeridian(real_data):
    path = real_data / "sentinel2" / "stac_01W_antimeridian_2023" / "catalog.json"
    catalog = {"type": "static", "path": str(path), "conventions": "earth-search-c1", "name": "01W"}
    items = stac.search_items(catalog, tile="01WCR", years=(2023, 2023), kind="sentinel-2")
    assert list(items["mgrs_tile"]) == ["01WCR"] and items.geometry[0].geom_type == "MultiPolygon"
    projected = matching.project_footprints(items)[0]
    assert projected.geom_type == "Polygon", "its two parts meet again in UTM"
    for lon in (179.99, 180.0, -180.0, -179.99):
        locations = pd.DataFrame({"location": [0], "lon": [lon], "lat": [68.0]})
        assert "01WCR" in grid.mgrs_tiles([lon], [68.0], 2560)[0]
        pairs = pd.DataFrame({"location": [0], "item": [0]})
        assert matching.holds_patch(pairs, locations, items, 2560).tolist() == [True], lon

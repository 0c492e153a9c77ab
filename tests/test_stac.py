"""Catalogs: the same items however they are served, their facts, patience and discretion."""

import json
import logging
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import requests
from made_scenes import make_item, write_collection, write_geoparquet

from workflow_scripts import search_tile
from workflow_scripts.core import bands, items, network, stac, tables

YEARS = (2020, 2022)


def made_items():
    """Five items: two tiles, one outside the years, one reprocessed."""
    made = [make_item(f"I{i}", day) for i, day in enumerate(("2021-07-01", "2022-12-31", "2023-01-01"))]
    made.append(make_item("I3", "2021-07-05", tile="33TTN"))
    again = {
        "s2:processing_baseline": "05.00",
        "s2:datatake_id": made[0]["properties"]["s2:datatake_id"].replace("02.14", "05.00"),
    }
    made.append(make_item("I0-again", "2021-07-01", **again))
    return made


def search(catalog, tile="32TQT", **options):
    return stac.search_items(
        {"name": "made", **catalog}, tile=tile, years=YEARS, kind="sentinel-2", **options
    )


@pytest.fixture
def catalogs(tmp_path, monkeypatch):
    """Catalogs of the same items: item collection, folder, static catalog, GeoParquet."""
    monkeypatch.chdir(tmp_path)
    write_collection("items.json", made_items())
    os.makedirs("folder")
    os.makedirs("static/sub")
    for item in made_items():
        with open(f"folder/{item['id']}.json", "w") as file:
            json.dump(make_item_with_base(item, ".."), file)
        with open(f"static/sub/{item['id']}.json", "w") as file:
            json.dump(make_item_with_base(item, "../.."), file)
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in made_items()]
    with open("static/sub/collection.json", "w") as file:
        json.dump({"type": "Collection", "id": "sentinel-2-l2a", "links": links}, file)
    links = [{"rel": "child", "href": "./sub/collection.json"}, {"rel": "self", "href": "./catalog.json"}]
    with open("static/catalog.json", "w") as file:
        json.dump({"type": "Catalog", "id": "c", "links": links}, file)
    write_geoparquet("a.parquet", made_items()[:2])
    write_geoparquet("b.parquet", made_items()[2:])
    own = {"conventions": "earth-search"}
    return {
        "collection": {**own, "type": "static", "path": "items.json"},
        "folder": {**own, "type": "static", "path": "folder"},
        "static": {**own, "type": "static", "path": "static/catalog.json"},
        "geoparquet": {**own, "type": "geoparquet", "path": ["a.parquet", "b.parquet"]},
        "pattern": {**own, "type": "geoparquet", "path": "?.parquet"},
    }


def make_item_with_base(item, base):
    item = json.loads(json.dumps(item))
    for asset in item["assets"].values():
        asset["href"] = f"{base}/{asset['href']}"
    return item


def test_catalogs_of_all_types_agree(catalogs):
    expected = search(catalogs["collection"])
    assert list(expected["item_id"]) == ["I0", "I0-again", "I1"]
    hrefs = json.loads(expected["hrefs"][0])
    assert hrefs["B02"] == "scenes/I0/B02.tif" and set(hrefs) == {*bands.ALL_BANDS, "SCL"}
    for name, catalog in catalogs.items():
        found = search(catalog)
        assert found.drop(columns="geometry").equals(expected.drop(columns="geometry")), name
        assert found.geometry.geom_equals(expected.geometry).all(), name
    assert list(search(catalogs["static"], tile="33TTN")["item_id"]) == ["I3"]


def test_zones_below_ten_are_found_with_and_without_a_zero(tmp_path):
    made = [make_item("I0", "2021-07-01", tile="1WCQ"), make_item("I1", "2021-07-02", tile="01WCQ")]
    write_geoparquet(tmp_path / "items.parquet", made)
    catalog = {"type": "geoparquet", "path": str(tmp_path / "items.parquet"), "conventions": "earth-search"}
    found = search(catalog, tile="01WCQ")
    assert list(found["item_id"]) == ["I0", "I1"] and set(found["mgrs_tile"]) == {"01WCQ"}


def test_facts_of_an_item(catalogs):
    row = search(catalogs["geoparquet"]).iloc[0]
    assert row["mgrs_tile"] == "32TQT" and row["epsg"] == 32632 and row["sun_zenith"] == 50
    assert row["datetime"] == pd.Timestamp("2021-07-01 10:10:31") and row["dn_offset"] == 0
    assert (row["origin_x"], row["origin_y"], row["width_m"], row["height_m"]) == (
        732_000,
        5_268_000,
        3000,
        3000,
    )
    again = search(catalogs["geoparquet"]).iloc[1]
    assert again["datatake"] == row["datatake"] and again["dn_offset"] == 1000


def test_stage_writes_the_table_and_an_empty_one_elsewhere(catalogs):
    for tile, n in (("32TQT", 3), ("31UGQ", 0)):
        search_tile.main(
            SimpleNamespace(
                params=SimpleNamespace(catalogs={"made": catalogs["geoparquet"]}, years=list(YEARS)),
                wildcards=SimpleNamespace(tile=tile),
                output=SimpleNamespace(found=f"{tile}.parquet"),
            )
        )
        table = tables.read_table(f"{tile}.parquet", "items")
        assert len(table) == n and table.crs.to_epsg() == 4326


def test_empty_catalog_is_one_clear_message(tmp_path):
    write_collection(tmp_path / "none.json", [])
    catalog = {"type": "static", "path": str(tmp_path / "none.json"), "conventions": "earth-search"}
    with pytest.raises(
        ValueError, match=r"catalog 'made' \(.*none.json\): no item .* 2020 to 2022 .*32TQT.*years"
    ):
        search(catalog)
    write_geoparquet(tmp_path / "none.parquet", made_items())
    table = tables.pq.read_table(tmp_path / "none.parquet").slice(0, 0)
    tables.pq.write_table(table, tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no item"):
        search({**catalog, "type": "geoparquet", "path": str(tmp_path / "none.parquet")})
    with pytest.raises(FileNotFoundError, match="no file"):
        search({**catalog, "path": str(tmp_path / "absent.json")})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json.*not valid JSON"):
        search({**catalog, "path": str(tmp_path / "bad.json")})
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"bad\.parquet is not a readable"):
        search({**catalog, "type": "geoparquet", "path": str(tmp_path / "bad.parquet")})
    with pytest.raises(ValueError, match="conventions = None"):
        search({"type": "static", "path": "x"})


def test_item_without_tile_is_found_by_footprint(tmp_path):
    item = make_item("plain", "2021-07-01", dn_offset=0)
    item["properties"]["grid:code"] = None
    item["assets"] = {
        band: asset for band, asset in zip((*bands.ALL_BANDS, "SCL"), item["assets"].values(), strict=True)
    }
    del item["assets"]["SCL"]
    write_collection(tmp_path / "items.json", [item])
    catalog = {"type": "static", "path": str(tmp_path / "items.json"), "conventions": "plain"}
    row = search(catalog).iloc[0]
    assert row["mgrs_tile"] == "" and row["datatake"] != "" and "SCL" not in json.loads(row["hrefs"])
    assert search(catalog, tile="31UGQ").empty


@pytest.mark.parametrize(
    ("properties", "item_id", "expected"),
    [
        ({"s2:mgrs_tile": "53NKG"}, "x", "53NKG"),
        ({"grid:code": "MGRS-1KAB"}, "x", "01KAB"),
        ({"mgrs:utm_zone": 9, "mgrs:latitude_band": "T", "mgrs:grid_square": "DE"}, "x", "09TDE"),
        ({}, "S2A_MSIL2A_20190101T000001_R116_T58UFE_20201007T214651", "58UFE"),
        ({}, "S2B_33TWL_20230813_0_L2A", "33TWL"),
        ({}, "S2A_MSIL2A_20170617T113321_36_85", ""),
    ],
)
def test_mgrs_tile(properties, item_id, expected):
    assert items.mgrs_tile({"id": item_id, "properties": properties}) == expected


def test_data_take_is_the_same_for_each_processing_but_not_for_each_strip():
    def take(**properties):
        return items.datatake({"id": "i", "properties": {f"s2:{k}": v for k, v in properties.items()}})

    strip = "S2A_OPER_MSI_L2A_DS_2APS_20240403T012353_S20240402T174230_N05.10"
    first = take(datatake_id="GS2A_20240402T173901_045855_N05.10", datastrip_id=strip)
    second = take(
        datatake_id="GS2A_20240402T173901_045855_N05.11",
        datastrip_id=strip.replace("0403T012353", "0901T000000"),
    )
    other = take(
        datatake_id="GS2A_20240402T173901_045855_N05.10",
        datastrip_id=strip.replace("S20240402T174230", "S20240402T174300"),
    )
    assert first == second != other
    assert (
        items.datatake({"id": "S2A_MSIL2A_20170617T113321_36_85", "properties": {}})
        == "S2A_MSIL2A_20170617T113321_36_85"
    )


# ---- patience ----------------------------------------------------------------------------------


def test_retry_waits_longer_and_gives_up():
    pauses = []

    def fail():
        raise network.TransientError("HTTP 503")

    with pytest.raises(RuntimeError, match=r"search: failed 4 times, last with: HTTP 503"):
        network.retry(fail, "search", attempts=4, sleep=pauses.append)
    assert pauses == [1, 2, 4]


def test_retry_obeys_retry_after_and_hides_tokens(caplog):
    caplog.set_level(logging.INFO)
    answers, pauses = (
        iter([network.TransientError("https://x/y.tif?sig=SECRET failed", retry_after_s=7), None]),
        [],
    )

    def once():
        answer = next(answers)
        if answer:
            raise answer
        return "done"

    assert network.retry(once, "reading", sleep=pauses.append) == "done"
    assert pauses == [7] and "SECRET" not in caplog.text and "y.tif" in caplog.text


def test_retry_lets_lasting_failures_through():
    def wrong():
        raise RuntimeError("HTTP 404")

    with pytest.raises(RuntimeError, match="HTTP 404"):
        network.retry(wrong, "reading", sleep=lambda _: pytest.fail("must not wait"))


def test_retry_after_as_a_date():
    moment = pd.Timestamp.now("UTC") + pd.Timedelta(seconds=30)
    assert 20 < network.retry_after_s(moment.strftime("%a, %d %b %Y %H:%M:%S GMT")) <= 30
    assert network.retry_after_s("12") == 12 and network.retry_after_s(None) is None


def test_no_token_in_messages_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "sign", lambda href, method: href + "?sig=SECRET")
    with pytest.raises(RuntimeError) as caught:
        network.open_href(str(tmp_path / "absent.tif"), access=network.Access("planetary-computer"))
    assert "SECRET" not in str(caught.value) and "absent.tif" in str(caught.value)
    with pytest.raises(ValueError, match="'other' is not one of"):
        monkeypatch.undo() or network.sign("x", network.Access("other"))


# ---- a STAC API --------------------------------------------------------------------------------


class Api(BaseHTTPRequestHandler):
    """Answers searches with pages of one item; `faults` are answered first."""

    items, faults, asked, repeats, conforms = [], [], [], False, True

    def log_message(self, *_):
        pass

    def reply(self, content, status=200, **headers):
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        root = f"http://127.0.0.1:{self.server.server_port}"
        conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
        if self.conforms:
            conforms.append("https://api.stacspec.org/v1.0.0/item-search#query")
        search = {"rel": "search", "href": f"{root}/search", "type": "application/geo+json", "method": "POST"}
        links = [search, {"rel": "self", "href": root}]
        landing = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "d"}
        self.reply({**landing, "links": links, "conformsTo": conforms})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body)
        if self.faults:
            status, headers = type(self).faults.pop(0)
            return self.reply({"message": "no"}, status, **headers)
        start = 0 if self.repeats else int(body.get("token", 0))
        page = {"type": "FeatureCollection", "features": self.items[start : start + 1], "links": []}
        if start + 1 < len(self.items):
            link = {"rel": "next", "method": "POST", "merge": True, "body": {"token": start + 1}}
            page["links"] = [{**link, "href": f"http://127.0.0.1:{self.server.server_port}/search"}]
        return self.reply(page)


@pytest.fixture
def api(monkeypatch):
    """An API that serves the items, and what it was asked."""
    Api.items, Api.faults, Api.asked, Api.repeats, Api.conforms = made_items(), [], [], False, True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(stac, "REQUEST_EVERY_S", 0.0)
    url = f"http://127.0.0.1:{server.server_port}/"
    yield {"type": "api", "url": url, "collection": "sentinel-2-l2a", "conventions": "earth-search"}
    server.shutdown()
    server.server_close()


def test_api_gives_what_files_give(api, catalogs):
    Api.faults = [(503, {}), (429, {"Retry_After": "0"})]
    found = search({**api, "page_size": 7})
    expected = search(catalogs["collection"])
    ignored = ["hrefs", "geometry"]
    assert found.drop(columns=ignored).equals(expected.drop(columns=ignored))
    asked = Api.asked[2]
    assert asked["query"] == {"grid:code": {"eq": "MGRS-32TQT"}} and asked["limit"] == 7
    assert asked["datetime"] == "2020-01-01T00:00:00Z/2022-12-31T23:59:59Z"
    assert len(Api.asked) == 2 + len(made_items()), "one search, one request per page"
    Api.conforms = False
    assert list(search(api)["item_id"]) == list(found["item_id"])
    assert "query" not in Api.asked[-1]


def test_requests_of_a_search_keep_their_distance(api, monkeypatch):
    monkeypatch.setattr(stac, "REQUEST_EVERY_S", 0.05)
    Api.faults = [(503, {})]
    began = time.monotonic()
    search(api)
    # the landing page, the page that failed, and the others: as many pauses as requests but one
    assert time.monotonic() - began > 0.05 * (1 + len(Api.asked) - 1) - 0.01


def test_api_that_stays_down_is_one_clear_message(api, monkeypatch):
    Api.faults = [(502, {})] * network.ATTEMPTS
    with pytest.raises(
        RuntimeError, match=r"search of tile 32TQT, 2020 to 2022, in catalog 'made': failed 5 times"
    ):
        search(api)
    Api.faults = [(400, {})]
    with pytest.raises(RuntimeError, match="HTTP 400"):
        search(api)
    monkeypatch.setattr(network, "FIRST_PAUSE_S", 0.0)
    with pytest.raises(RuntimeError, match="failed 5 times"):
        search({**api, "url": "http://127.0.0.1:9/"})


def test_api_that_repeats_its_pages_is_noticed(api):
    Api.repeats = True
    with pytest.raises(RuntimeError, match="repeats its pages"):
        search(api)


def test_connection_errors_pass():
    calls = []

    def once():
        calls.append(1)
        if len(calls) < 3:
            raise requests.ConnectionError("refused")
        return 1

    assert network.retry(once, "x", sleep=lambda _: None) == 1


# ---- MODIS -------------------------------------------------------------------------------------


def test_modis_items(tmp_path):
    def modis(stamp, **properties):
        name = f"MOD13A1.A2021001.h18v04.061.{stamp}"
        return {
            "type": "Feature",
            "id": name,
            "collection": "modis-13A1-061",
            "geometry": None,
            "bbox": [0, 40, 15, 50],
            "assets": {"500m_16_days_EVI": {"href": f"./{name}.tif"}},
            "properties": {
                "datetime": None,
                "start_datetime": "2021-01-01T00:00:00Z",
                "platform": "terra",
                **properties,
            },
        }

    grid_of = {"modis:horizontal-tile": 18, "modis:vertical-tile": 4}
    other = {"modis:horizontal-tile": 19, "modis:vertical-tile": 4}
    write_collection(
        tmp_path / "m.json",
        [modis("2021020000000", **grid_of), modis("2021020000001"), modis("2021020000002", **other)],
    )
    catalog = {"type": "static", "path": str(tmp_path / "m.json"), "name": "m"}
    found = stac.search_items(
        catalog, tile="h18v04", years=(2021, 2021), kind="modis", collection="modis-13A1-061"
    )
    assert list(found["produced"]) == ["2021020000000", "2021020000001"]
    assert found["datetime"][0] == pd.Timestamp("2021-01-01") and found["platform"][0] == "terra"
    assert list(json.loads(found["hrefs"][0])) == ["500m_16_days_EVI"]
    with pytest.raises(ValueError, match="no item of collection 'other'"):
        stac.search_items(catalog, tile="h18v04", years=(2021, 2021), kind="modis", collection="other")
    with pytest.raises(ValueError, match="kind 'radar'"):
        stac.search_items(catalog, tile="h18v04", years=(2021, 2021), kind="radar")


def test_tile_area_crosses_the_antimeridian():
    area = items.tile_area("01WCQ", "sentinel-2")
    assert (
        area.geom_type == "MultiPolygon"
        and np.isclose(area.bounds[0], -180)
        and np.isclose(area.bounds[2], 180)
    )

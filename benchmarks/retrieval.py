"""Retrieval of patches from tiles of true size over HTTP: ours, what users know, and the floor.

    python benchmarks/retrieval.py --scratch results/benchmark-scenes

Made tiles (10,980² pixels at 10 m, 5,490² at 20 m, 1,830² at 60 m, cloud-optimized GeoTIFFs with
blocks of 512 or 1,024, deflate with predictor 2) stand in the scratch folder and are made once. One
file serves the four 10 m bands under different names, another both 60 m bands; their noise is set so
that they compress about as real scenes do. nginx on the loopback serves them; its log tells requests
and bytes. For the runs with latency a proxy between passes each request on some time later. The work
of both is not in the CPU times, but on few cores it lengthens all wall times.

A run is a job: patches of four scenes at each place (the same files under four names, which no method
can know). Methods, each in a process of its own, in turns, so that other load on the machine hits all
alike:

- ours: the stage `retrieve_patches` with the reader `windows`: screening by SCL, twelve bands at
  native resolution, checksums, sharded store.
- gdal_reader: the same with the reader `rasterio`.
- stackstac: stackstac + dask, a cube of four items per place, twelve bands and SCL at 10 m, nearest,
  uint16, written to Zarr with its defaults, one chunk per patch; 8 dask threads.
- reference: the published way in rasterio: per patch open each file, read at 10 m, write a GeoTIFF
  of 13 bands, LZW with predictor 2; 8 threads.
- whole_job: ours, a shard of 64 locations and four scenes, once, for its memory.
- floor: GDAL reads the native windows from local files, nothing is stored.

Prints a table and ends with lines ``CLAIM <name> <measured> >= <target>``.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import rasterio
import rasterio.shutil
import rasterio.windows

sys.path.insert(0, str(Path(__file__).parents[1]))

from pretrain.reader import open_arrays
from workflow_scripts import retrieve_patches
from workflow_scripts.core import bands, grid, network, store, tables
from workflow_scripts.core.patches import PARTS, READERS, Place, Wish, fetch

TILE, SIZE_M, SEED = "32TQT", 2560, 0
EPSG, LEFT, _, _, TOP = grid.mgrs_tile_bounds(TILE)
NOISE = {10: 40, 20: 50, 60: 50}
"""Standard deviation in DN; files then compress 1.3 to 1.5 times, as those of a real scene did."""
METHODS = ("ours", "gdal_reader", "stackstac", "reference", "floor")
NAMES = (*bands.ALL_BANDS, "SCL")
SCENES = ("a", "b", "c", "d")


warnings.filterwarnings("ignore", message="Consolidated metadata")


def step_of(band):
    return 20 if band == "SCL" else bands.RESOLUTION_M[band]


# ---- the made tile ---------------------------------------------------------------------------


def make_tile(folder, block):
    """Write the files of a tile; bands that share their pixels are links."""
    folder.mkdir(parents=True, exist_ok=True)
    same = {"B03": "B02", "B04": "B02", "B08": "B02", "B09": "B01"}
    for band in sorted(NAMES, key=lambda band: band in same):
        path = folder / f"{band}.tif"
        if path.exists():
            continue
        if band in same:
            os.link(folder / f"{same[band]}.tif", path)
        else:
            write_cog(path, band, block)


def write_cog(path, band, block):
    step = step_of(band)
    rng = np.random.default_rng(SEED + NAMES.index(band))
    n = 109_800 // step
    if band == "SCL":  # classes in fields of 10 pixels
        fields = rng.choice([4, 4, 4, 5, 6, 11], (n // 10 + 1, n // 10 + 1)).astype(np.uint8)
        values = np.repeat(np.repeat(fields, 10, 0), 10, 1)[:n, :n]
    else:
        # noise repeats only beyond what deflate can see
        noise = rng.normal(0, NOISE[step], (n // 4 + 1, n // 4 + 1)).astype(np.int16)
        across = (1200 * np.sin(np.linspace(0, 40, n))).astype(np.int16)
        values = np.tile(noise, (4, 4))[:n, :n]
        values += across + across[:, None] + np.int16(4000)
        values = np.maximum(values, 1).astype(np.uint16)
    profile = {"driver": "MEM", "width": n, "height": n, "count": 1, "dtype": values.dtype}
    transform = rasterio.Affine(step, 0, LEFT, 0, -step, TOP)
    with rasterio.open("", "w", crs=f"EPSG:{EPSG}", transform=transform, nodata=0, **profile) as file:
        file.write(values, 1)
        rasterio.shutil.copy(
            file,
            path.with_suffix(".part"),
            driver="COG",
            COMPRESS="DEFLATE",
            PREDICTOR="YES",
            BLOCKSIZE=str(block),
            NUM_THREADS="ALL_CPUS",
            RESAMPLING="NEAREST",
        )
    path.with_suffix(".part").rename(path)


def points(n):
    """Places on a 23 km lattice, moved at random within their cells; whole patches of the tile."""
    rng = np.random.default_rng(SEED)
    corners = [(x, y) for y in range(5) for x in range(5)][:n]
    return [
        (LEFT + 2000 + 21_000 * (x + rng.random()), TOP - 2000 - 21_000 * (y + rng.random()))
        for x, y in corners
    ]


# ---- the server ------------------------------------------------------------------------------


NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  log_format asked '$request_method $request_uri $http_range $body_bytes_sent';
  access_log {folder}/asked.log asked;
  sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def free_port():
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


class Server:
    """nginx over a folder, in a process of its own; what it was asked stands in its log."""

    def __init__(self, root, folder):
        if shutil.which("nginx") is None:
            raise SystemExit("this benchmark needs nginx: apt-get install nginx-light")
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.port = folder / "asked.log", free_port()
        self.log.unlink(missing_ok=True)
        text = NGINX.format(folder=folder.resolve(), root=root.resolve(), port=self.port)
        (folder / "nginx.conf").write_text(text)
        self.process = subprocess.Popen(
            ["nginx", "-e", str(folder / "error.log"), "-c", str((folder / "nginx.conf").resolve())]
        )
        self.seen = 0
        wait_for(self.port)

    def asked(self):
        """Requests, bytes, and ranges that began where an earlier one had, since last asked."""
        time.sleep(0.1)
        lines = self.log.read_text().splitlines()
        new, self.seen = lines[self.seen :], len(lines)
        parts = [line.split() for line in new if line.startswith("GET ")]
        begins = [(path, wanted.removeprefix("bytes=").split("-")[0]) for _, path, wanted, _ in parts]
        return len(parts), sum(int(n) for *_, n in parts), len(begins) - len(set(begins))


def wait_for(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server does not start")


def delay(port, to, seconds):
    """Pass everything on to another port, requests some time later than they came."""

    async def later(reader, writer):
        while data := await reader.read(1 << 16):
            await asyncio.sleep(seconds)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def through(reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader, writer):
        with contextlib.suppress(OSError):
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", to, limit=1 << 20)
            await asyncio.gather(later(reader, to_writer), through(to_reader, writer))

    async def serve():
        async with await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 20) as server:
            await server.serve_forever()

    asyncio.run(serve())


# ---- the methods: each retrieves the patches at `places` into `out` ----------------------------


def hrefs_of(base):
    """Addresses of each scene's files."""
    return [{band: f"{base}/{band}.tif?{scene}" for band in NAMES} for scene in SCENES]


def run_ours(base, places, out, *, reader="windows"):
    lon, lat = grid.unproject(*np.array(places).T, EPSG)
    n = len(places)
    locations = pd.DataFrame({"location_id": [f"P{i}" for i in range(n)], "lon": lon, "lat": lat})
    path = out / "patches.zarr"
    store.create_store(path, locations=locations, seasons=list(SCENES), size_m=SIZE_M, per_shard=n)
    scenes = [
        locations[["location_id"]].assign(
            location=range(n),
            season=season,
            rank=0,
            reason="candidate",
            n=1,
            item_id=f"made {season}",
            collection="made",
            catalog="made",
            datetime=pd.Timestamp("2021-07-01") + pd.Timedelta(days=k),
            days_from_target=0,
            cloud_cover=0.0,
            nodata=0.0,
            sun_zenith=30.0,
            mgrs_tile=TILE,
            epsg=EPSG,
            baseline="05.00",
            dn_offset=1000,
            offset_source="made",
            hrefs=json.dumps(hrefs),
        )
        for k, (season, hrefs) in enumerate(zip(SCENES, hrefs_of(base), strict=True))
    ]
    tables.write_table(pd.concat(scenes, ignore_index=True), out / "scenes.parquet", "scenes")
    params = {"reader": reader, "max_cloud_fraction": 0.2, "max_nodata_fraction": 0.0}
    job = SimpleNamespace(
        input=SimpleNamespace(scenes=out / "scenes.parquet", store=path / "zarr.json"),
        output=SimpleNamespace(retrieved=out / "retrieved.parquet"),
        params=SimpleNamespace(catalogs={"made": {"conventions": "earth-search"}}, **params),
        wildcards=SimpleNamespace(shard="0"),
        threads=2,
    )
    retrieve_patches.main(job)
    assert (tables.read_table(out / "retrieved.parquet", "retrieved")["status"] == "ok").all()


def run_whole_job(base, places, out):
    """A shard as config.yaml has it: 64 locations."""
    rng = np.random.default_rng(SEED)
    x, y = 2000 + 105_000 * rng.random((2, 64 if len(places) > 1 else 1))  # one place: to warm up
    run_ours(base, list(zip(LEFT + x, TOP - y, strict=True)), out)


def run_gdal_reader(base, places, out):
    run_ours(base, places, out, reader="rasterio")


def run_stackstac(base, places, out):
    import dask
    import pystac
    import stackstac
    import xarray as xr

    lon, lat = grid.unproject([LEFT, LEFT + 109_800], [TOP - 109_800, TOP], EPSG)
    items = []
    for k, hrefs in enumerate(hrefs_of(base)):
        date = pd.Timestamp("2021-07-01") + pd.Timedelta(days=k)
        item = pystac.Item(SCENES[k], None, [lon[0], lat[0], lon[1], lat[1]], date, {"proj:epsg": EPSG})
        for band, href in hrefs.items():
            step = step_of(band)
            grid_of_file = {
                "proj:shape": [109_800 // step] * 2,
                "proj:transform": [step, 0, LEFT, 0, -step, TOP],
            }
            item.add_asset(band, pystac.Asset(href, extra_fields=grid_of_file))
        items.append(item.to_dict())
    cubes = []
    for x, y in places:
        left, top = (float(value) for value in grid.patch_origin(x, y, SIZE_M))
        cube = stackstac.stack(
            items,
            assets=list(NAMES),
            epsg=EPSG,
            resolution=10,
            bounds=(left, top - SIZE_M, left + SIZE_M, top),
            dtype="uint16",
            fill_value=np.uint16(0),
            rescale=False,
            chunksize=256,
        )
        cubes.append(xr.DataArray(cube.data, dims=("time", "band", "y", "x")))
    cube = xr.concat(cubes, "location").chunk({"location": 1, "time": 1, "band": -1})
    with dask.config.set(scheduler="threads", num_workers=8):
        cube.to_dataset(name="dn").to_zarr(out / "stackstac.zarr", mode="w")


def run_reference(base, places, out):
    def one(place, k, hrefs):
        left, top = (float(value) for value in grid.patch_origin(*place, SIZE_M))
        layers = []
        for band in bands.ALL_BANDS:
            with rasterio.open(f"/vsicurl/{hrefs[band]}") as file:
                window = rasterio.windows.from_bounds(
                    left, top - SIZE_M, left + SIZE_M, top, transform=file.transform
                )
                layers.append(file.read(1, window=window, out_shape=(256, 256)))
        cube = np.stack(layers)
        red, near = (cube[bands.ALL_BANDS.index(band)].astype(np.float32) for band in ("B04", "B08"))
        ndvi = np.round(10_000 * ((near - red) / (near + red) + 1)).astype(np.uint16)
        folder = out / f"{left:.0f}_{top:.0f}" / SCENES[k]
        folder.mkdir(parents=True)
        write_geotiff(folder / "all_bands.tif", np.concatenate([cube, ndvi[None]]), left, top)

    options = {key: value for key, value in network.GDAL_OPTIONS.items() if key != "CPL_VSIL_CURL_NON_CACHED"}
    with rasterio.Env(**options), ThreadPoolExecutor(8) as pool:
        wanted = [(place, k, hrefs) for place in places for k, hrefs in enumerate(hrefs_of(base))]
        list(pool.map(one, *zip(*wanted, strict=True)))


def write_geotiff(path, values, left, top):
    n_bands, height, width = values.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": n_bands, "dtype": "uint16"}
    transform = rasterio.Affine(10, 0, left, 0, -10, top)
    with rasterio.open(
        path, "w", compress="lzw", predictor=2, crs=f"EPSG:{EPSG}", transform=transform, **profile
    ) as file:
        file.write(values)


def run_floor(base, places, out):
    del out
    hrefs = {band: f"{base}/{band}.tif" for band in NAMES}
    wishes = []
    for x, y in places:
        left, top = (float(value) for value in grid.patch_origin(x, y, SIZE_M))
        wishes.append(Wish(Place(EPSG, left, top, SIZE_M), hrefs, tuple(PARTS), 0))
    for _ in SCENES:  # opened anew: blocks that GDAL keeps would not be those of another scene
        with READERS["rasterio"]() as reader:
            list(fetch(reader, wishes))


def child(method, base, n, out):
    """Run one method and print what it took; one patch goes before, so that nothing is imported late."""
    run = globals()[f"run_{method}"]
    for name, places in (("warm", points(25)[-1:]), ("measured", points(n))):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if name == "measured":
            sys.stdin.readline()  # the parent resets the server's counts
        wall, cpu = time.perf_counter(), time.process_time()
        run(base, places, folder)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if name == "warm":
            print("ready", flush=True)
    # not getrusage, whose peak begins with the parent's
    status = Path("/proc/self/status").read_text()
    rss = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    n_patches = n * len(SCENES)
    print(json.dumps({"cpu": n_patches / cpu, "wall": n_patches / wall, "rss_gb": rss}))


def measure(method, base, n, out, server):
    command = [sys.executable, __file__, "--child", method, base, str(n), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        server.asked()  # what warming up asked is not counted
        os.sync()  # who waits for the disk must not wait for what others wrote
        text, _ = process.communicate("go\n")
    if process.returncode:
        raise SystemExit(f"{method} failed")
    names = ("requests", "bytes", "repeated")
    per_patch = [value / n / len(SCENES) for value in server.asked()]
    return json.loads(text) | dict(zip(names, per_patch, strict=True))


# ---- the stored patches ----------------------------------------------------------------------


def made_pixels(n, rng):
    """Twelve different bands per patch: relief and noise; part → array (patch, band, y, x)."""
    pixels = {}
    for part, names in PARTS.items():
        if part == "scl":
            continue
        side = grid.n_pixels(SIZE_M, int(part.removeprefix("dn")))
        relief = rng.normal(0, 30, (n, len(names), side, side)).cumsum(2).cumsum(3) / np.sqrt(side)
        noise = rng.normal(0, 40, (n, len(names), side, side))
        pixels[part] = np.clip(2000 + relief + noise, 1, 12_000).astype(np.uint16)
    return pixels, SIZE_M


def real_pixels(folder):
    """The patches of a BigEarthNet folder (1,200 m, twelve bands), 60 m bands with a border repeated."""
    pixels, size_m = {}, 1200
    for part, names in PARTS.items():
        if part == "scl":
            continue
        side = grid.n_pixels(size_m, int(part.removeprefix("dn")))
        patches = []
        for patch in sorted(path for path in folder.iterdir() if path.is_dir()):
            layers = []
            for band in names:
                with rasterio.open(patch / f"{patch.name}_{band}.tif") as file:
                    values = file.read(1)
                layers.append(np.pad(values, [(0, side - len(values))] * 2, mode="edge"))
            patches.append(np.maximum(np.stack(layers), 1))
        pixels[part] = np.stack(patches)
    return pixels, size_m


def stored_patches(folder, pixels, size_m, rng, rounds=5):
    """Store patches both ways; give bytes per patch, and patches read per CPU second."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    n = len(pixels["dn10"])
    locations = pd.DataFrame({"location_id": [f"P{i}" for i in range(n)], "lon": 9.0, "lat": 47.0})
    path = folder / "patches.zarr"
    store.create_store(path, locations=locations, seasons=["summer"], size_m=size_m, per_shard=n)
    arrays = store.empty_shard(path, 0)
    arrays["scl"][:] = 4
    for part, values in pixels.items():
        arrays[part][:, 0] = values
    for name, value in (("epsg", EPSG), ("origin_x", LEFT), ("origin_y", TOP)):
        arrays[name][:] = value
    arrays["origin60_x"][:], arrays["origin60_y"][:] = LEFT, TOP
    store.write_shard(path, 0, arrays)
    dataset = store.open_store(path)
    for i in range(n):
        patch = dataset.isel(location=i, season=0).load()
        cube = store.cube10(patch).values
        ndvi = np.nan_to_num(store.ndvi10(patch).values)
        values = np.concatenate([cube, 10_000 * (ndvi[None] + 1)]).round().astype(np.uint16)
        write_geotiff(folder / f"{i}.tif", values, LEFT, TOP)
    sizes = [
        sum(file.stat().st_size for file in files) / n for files in (path.rglob("c.*"), folder.glob("*.tif"))
    ]
    arrays = {direct: open_arrays(path, direct=direct).values() for direct in (True, False)}
    rates = {True: [], False: [], "geotiff": []}
    times = max(1, 24 // n)  # a clock tick is long beside few patches
    for _ in range(rounds):
        for direct, parts in arrays.items():
            begin = time.process_time()
            for i in np.tile(rng.permutation(n), times):
                for array in parts:
                    array.read(i, 0)
            rates[direct].append(n * times / (time.process_time() - begin))
        begin = time.process_time()
        for i in np.tile(rng.permutation(n), times):
            with rasterio.open(folder / f"{i}.tif") as file:
                file.read()
        rates["geotiff"].append(n * times / (time.process_time() - begin))
    return sizes, {name: statistics.median(values) for name, values in rates.items()}


def storage_claims(options):
    """Compare size and reading of stored patches, made ones and, where they are, real ones."""
    rng, claims = np.random.default_rng(SEED), {}
    kinds = {"made": made_pixels(options.points, rng)}
    if options.real.is_dir():
        kinds["real"] = real_pixels(options.real)
    else:
        print(f"no real patches: {options.real} is absent (--real FOLDER: a folder of BigEarthNet patches)")
    for kind, (pixels, size_m) in kinds.items():
        sizes, rates = stored_patches(options.scratch / "out" / "stored", pixels, size_m, rng)
        print(
            f"stored patch of {size_m} m, {kind} pixels: {sizes[0] / 1e6:.3f} MB, {rates[True]:.0f} read per "
            f"CPU s by the training reader, {rates[False]:.0f} by zarr-python; 13-band LZW GeoTIFF: "
            f"{sizes[1] / 1e6:.3f} MB, {rates['geotiff']:.0f}"
        )
        claims[f"size_of_reference_per_size_of_ours_{kind}"] = sizes[1] / sizes[0], round(1 / 0.45, 2)
        claims[f"random_reads_vs_reference_{kind}"] = rates[True] / rates["geotiff"], 3.5
    return claims


def main(options):
    """Make the tiles, run everything, print table and claims."""
    folders = {block: options.scratch / f"blocks{block}" for block in options.blocks}
    begin = time.perf_counter()
    for block, folder in folders.items():
        make_tile(folder, block)
    payload = sum((109_800 // step_of(band)) ** 2 * (1 if band == "SCL" else 2) for band in NAMES)
    print(f"tiles ready after {time.perf_counter() - begin:.0f} s")
    server, slow_port = Server(options.scratch, options.scratch / "nginx"), free_port()
    proxy = multiprocessing.Process(
        target=delay, args=(slow_port, server.port, options.latency_ms / 1000), daemon=True
    )
    proxy.start()
    wait_for(slow_port)
    try:
        claims = compare(folders, server, slow_port, payload, options)
    finally:
        proxy.terminate()
        server.process.terminate()
    claims |= storage_claims(options)
    for name, (measured, target) in claims.items():
        print(f"CLAIM {name} {measured:.2f} >= {target}")


def compare(folders, server, slow_port, payload, options):
    """Run all methods in turns; give the claims."""
    claims = {}
    print(f"{'':24}{'patches/CPU s':>14}{'patches/s':>11}{'requests':>10}{'MB':>7}{'again':>7}{'RSS GB':>8}")
    for block, folder in folders.items():
        compression = payload / sum((folder / f"{band}.tif").stat().st_size for band in NAMES)
        print(f"blocks of {block}, compression {compression:.2f} with overviews, {options.points} places")
        for port in (server.port, slow_port):
            is_slow = port == slow_port
            methods = ("ours", "gdal_reader", "stackstac", "reference") if is_slow else METHODS
            taken = {method: [] for method in methods}
            for _ in range(options.rounds):
                for method in methods:
                    base = folder if method == "floor" else f"http://127.0.0.1:{port}/{folder.name}"
                    out = options.scratch / "out" / method
                    taken[method].append(measure(method, str(base), options.points, out, server))
            middle = {
                method: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                for method, runs in taken.items()
            }
            for method, row in middle.items():
                name = f"  {method}" + (f", {options.latency_ms:.0f} ms" if is_slow else "")
                print(
                    f"{name:24}{row['cpu']:14.1f}{row['wall']:11.1f}{row['requests']:10.1f}"
                    f"{row['bytes'] / 1e6:7.2f}{row['repeated']:7.2f}{row['rss_gb']:8.2f}"
                )
            ours = middle["ours"]
            if not is_slow:
                base = f"http://127.0.0.1:{port}/{folder.name}"
                job = measure("whole_job", base, options.points, options.scratch / "out" / "job", server)
                print(f"  {'whole_job, 256 patches':80}{job['rss_gb']:8.2f}")
                claims[f"memory_headroom_{block}"] = 1.5 / job["rss_gb"], 1
            if is_slow:
                claims[f"wall_vs_stackstac_latency_{block}"] = (
                    ours["wall"] / middle["stackstac"]["wall"],
                    2.5,
                )
                continue
            claims[f"cpu_vs_stackstac_{block}"] = ours["cpu"] / middle["stackstac"]["cpu"], 2.3
            claims[f"wall_vs_stackstac_{block}"] = ours["wall"] / middle["stackstac"]["wall"], 2.5
            claims[f"cpu_vs_reference_{block}"] = ours["cpu"] / middle["reference"]["cpu"], 1.7
            claims[f"wall_vs_reference_{block}"] = ours["wall"] / middle["reference"]["wall"], 1.9
            claims[f"cpu_vs_floor_{block}"] = ours["cpu"] / middle["floor"]["cpu"], 0.6
            claims[f"ranges_asked_once_{block}"] = 1 - ours["repeated"] / ours["requests"], 1
    return claims


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scratch", type=Path, default=Path("results/benchmark-scenes"))
    parser.add_argument("--blocks", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--points", type=int, default=24, help="places per run, 25 at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--real", type=Path, default=Path("shared/data/sentinel2/bigearthnet_example"))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child[0], chosen.child[1], int(chosen.child[2]), Path(chosen.child[3]))
    else:
        main(chosen)

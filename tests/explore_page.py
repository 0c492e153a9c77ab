"""A small explore page of fabricated places, and a server for pages; used by tests and a benchmark."""

import functools
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd

from tests import fabricate
from workflow_scripts import explore_shard, write_explore
from workflow_scripts.core import tables

CHROMIUM_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""WebGL by software: the browser of a test machine seldom has a graphics card."""


def chromium():
    """Path of a Chromium, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@contextmanager
def served(folder):
    """Serve a folder on the loopback; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_page(folder, *, n=9, **report):
    """Write the page of one fabricated dataset, `made`; gives its files and the page's folder."""
    folder = Path(folder)
    files = fabricate.write_dataset(folder / "made", n=n)
    index = pd.read_parquet(files["patches"])
    options = fabricate.settings(**report)
    options["locations"]["per_shard"] = fabricate.PER_SHARD
    for shard in range(-(-n // fabricate.PER_SHARD)):
        retrieved = index.reindex(columns=list(tables.COLUMNS["retrieved"])).fillna({"screened": ""})
        retrieved = retrieved[retrieved["location"] // fabricate.PER_SHARD == shard]
        path = folder / "retrieved" / f"{shard}.parquet"
        tables.write_table(retrieved, path, "retrieved")
        kinds = ("locations", "seasons", "cycles", "greenness", "store")
        job = fabricate.job(
            inputs={kind: files[kind] for kind in kinds}
            | {"scenes": files["scenes"][0], "retrieved": str(path)},
            outputs={
                "details": folder / "explore" / "made" / f"{shard}.json",
                "quicklooks": folder / "explore" / "made" / f"{shard}.jpg",
            },
            params={"phenology": options["phenology"], "white": options["report"]["max_reflectance"]},
            dataset="made",
            shard=str(shard),
        )
        explore_shard.main(job)
    write_explore.main(
        fabricate.job(
            inputs={f"made/{kind}": files[kind] for kind in ("locations", "seasons", "patches")},
            outputs={"page": folder / "explore" / "index.html"},
            params={
                "datasets": {"made": options},
                "static": sorted(path.name for path in write_explore.STATIC.iterdir()),
            },
        )
    )
    return files, folder / "explore"

"""A local web server over a built world: its files with ranges, a STAC API, and faults on request.

    with DemoServer(folder) as server:
        client = pystac_client.Client.open(server.api_url)

It stands in for a public catalog in tests and benchmarks: it listens on a free port of 127.0.0.1
and runs in threads of the process that needs it.
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from workflow_scripts.demo.faults import Fault, damage
from workflow_scripts.demo.stac_search import Catalog

FILES = "/files/"
API = "/stac"
DEFAULT_LIMIT = 10
CONFORMANCE = [
    f"https://api.stacspec.org/v1.0.0/{name}"
    for name in (
        "core",
        "collections",
        "item-search",
        "item-search#query",
        "item-search#sort",
        "ogcapi-features",
    )
]
LIST_PARAMETERS = ("ids", "collections")


@dataclass
class DemoServer:
    """Serve `folder` (of a built world) below ``/files/`` and its catalogs as a STAC API."""

    folder: Path
    catalogs: Sequence[str] = ("items.json", "modis.json")
    """ItemCollections in the folder whose items the API offers, with absolute hrefs."""
    faults: list[Fault] = field(default_factory=list)
    """May be changed while the server runs."""
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path with query, and status of everything answered so far."""
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """Path, first and last byte of every part of a file that was sent whole."""

    def __enter__(self) -> Self:
        """Start serving."""
        self.folder = Path(self.folder)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.api_url = self.url + API
        self.files_url = self.url + FILES
        self._catalog = Catalog(self._read_items())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _read_items(self) -> list[dict]:
        items = []
        for name in self.catalogs:
            items += json.loads((self.folder / name).read_text())["features"]
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = self.files_url + asset["href"]
            base = f"{self.api_url}/collections/{item['collection']}"
            item["links"] = [
                {"rel": "self", "href": f"{base}/items/{item['id']}", "type": "application/geo+json"},
                {"rel": "collection", "href": base, "type": "application/json"},
                {"rel": "root", "href": self.api_url, "type": "application/json"},
            ]
        return items

    def take_fault(self, target: str) -> Fault | None:
        """Give the fault that befalls a request, if any, and count it."""
        with self._lock:
            for fault in self.faults:
                spent = fault.times is not None and fault.n_hits >= fault.times
                if not spent and re.search(fault.pattern, target) and fault.strikes():
                    fault.n_hits += 1
                    return fault
        return None

    def answer(self, target: str, body: dict | None) -> dict | None:
        """Give the API's answer to a path with query (and JSON body), None where there is nothing."""
        parts = urlsplit(target)
        path = [unquote(part) for part in parts.path.removeprefix(API).split("/") if part]
        match path:
            case []:
                return self._landing_page()
            case ["conformance"]:
                return {"conformsTo": CONFORMANCE}
            case ["collections"]:
                listed = [self._collection(name) for name in self._catalog.collections]
                return {"collections": listed, "links": []}
            case ["collections", name] if name in self._catalog.collections:
                return self._collection(name)
            case ["collections", name, "items"] if name in self._catalog.collections:
                return self._search(target, {**_query_arguments(parts.query), "collections": [name]}, None)
            case ["collections", name, "items", item_id]:
                found = self._catalog.search({"collections": [name], "ids": [item_id]})
                return found[0] if found else None
            case ["search"]:
                return self._search(target, body or _query_arguments(parts.query), body)
        return None

    def _landing_page(self) -> dict:
        links = [
            {"rel": "self", "href": self.api_url, "type": "application/json"},
            {"rel": "root", "href": self.api_url, "type": "application/json"},
            {"rel": "data", "href": f"{self.api_url}/collections", "type": "application/json"},
            {"rel": "conformance", "href": f"{self.api_url}/conformance", "type": "application/json"},
        ]
        for method in ("GET", "POST"):
            search = {"rel": "search", "href": f"{self.api_url}/search", "type": "application/geo+json"}
            links.append(search | {"method": method})
        for name in self._catalog.collections:
            links.append({"rel": "child", "href": f"{self.api_url}/collections/{name}"})
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "made-world",
            "description": "The made world of the demo; says nothing about the Earth.",
            "conformsTo": CONFORMANCE,
            "links": links,
        }

    def _collection(self, name: str) -> dict:
        base = f"{self.api_url}/collections/{name}"
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": f"{name} of the made world",
            "license": "MIT",
            "extent": self._catalog.extent(name),
            "links": [
                {"rel": "self", "href": base, "type": "application/json"},
                {"rel": "root", "href": self.api_url, "type": "application/json"},
                {"rel": "items", "href": f"{base}/items", "type": "application/geo+json"},
            ],
        }

    def _search(self, target: str, arguments: dict, body: dict | None) -> dict:
        """Answer one page; the token is the position of the next item."""
        found = self._catalog.search(arguments)
        begin = int(arguments.get("token") or 0)
        limit = int(arguments.get("limit") or DEFAULT_LIMIT)
        end = begin + limit
        links = [{"rel": "root", "href": self.api_url, "type": "application/json"}]
        if end < len(found):
            link = {"rel": "next", "type": "application/geo+json"}
            if body is None:
                query = {**_flat_query(target), "token": str(end)}
                path = urlsplit(target).path
                link |= {"method": "GET", "href": f"{self.url}{path}?{urlencode(query)}"}
            else:
                following = {**body, "token": str(end)}
                link |= {"method": "POST", "href": f"{self.api_url}/search", "body": following}
            links.append(link)
        page = found[begin:end]
        return {
            "type": "FeatureCollection",
            "features": page,
            "links": links,
            "numberMatched": len(found),
            "numberReturned": len(page),
        }


def _flat_query(target: str) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(urlsplit(target).query).items()}


def _query_arguments(query: str) -> dict[str, Any]:
    """Bring the parameters of a GET search to the shape of a POST body."""
    arguments: dict[str, Any] = {key: values[-1] for key, values in parse_qs(query).items()}
    for key in LIST_PARAMETERS:
        if key in arguments:
            arguments[key] = arguments[key].split(",")
    if "bbox" in arguments:
        arguments["bbox"] = [float(value) for value in arguments["bbox"].split(",")]
    for key in ("intersects", "query"):
        if key in arguments:
            arguments[key] = json.loads(arguments[key])
    if "sortby" in arguments:
        signs = {"-": "desc", "+": "asc"}
        arguments["sortby"] = [
            {"field": name.lstrip("+- "), "direction": signs.get(name[0], "asc")}
            for name in arguments["sortby"].split(",")
        ]
    return arguments


def _byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Give first and last byte of a Range header; None if absent; ValueError if unsatisfiable."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        return max(size - int(last), 0), size - 1
    begin, end = int(first), min(int(last) if last else size - 1, size - 1)
    if begin > end:
        raise ValueError(f"range {header!r} lies outside {size} bytes")
    return begin, end


def _handler(server: DemoServer) -> type[BaseHTTPRequestHandler]:
    """Make the request handler class of one server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a small answer waits 40 ms for the client's acknowledgement

        def log_message(self, *parts: object) -> None:
            """Keep silent: `DemoServer.requests` is the log."""

        def _respond(self, make: Callable[[], tuple[int, bytes, dict]]) -> None:
            fault = server.take_fault(unquote(self.path))
            if fault is not None and fault.kind == "status":
                headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
                status, body = fault.status, HTTPStatus(fault.status).phrase.encode()
            else:
                status, body, headers = make()
                if fault is not None and fault.kind == "corrupt":
                    body = damage(body)
            server.requests.append((self.command, self.path, status))
            self.send_response(status)
            if fault is None and status == 206:
                first, last = re.match(r"bytes (\d+)-(\d+)", headers["Content-Range"]).groups()
                server.ranges.append((self.path, int(first), int(last)))
            length = headers.pop("Content-Length", str(len(body)))
            for name, value in {"Content-Length": length, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault is not None and fault.kind == "truncate":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.wfile.write(body)

        def _api(self, body: dict | None) -> tuple[int, bytes, dict]:
            kind = {"Content-Type": "application/geo+json"}
            try:
                answer = server.answer(self.path, body)
            except (ValueError, KeyError, TypeError) as error:
                return 400, json.dumps({"code": "BadRequest", "description": str(error)}).encode(), kind
            if answer is None:
                return 404, b'{"code": "NotFound", "description": "nothing here"}', kind
            return 200, json.dumps(answer).encode(), kind

        def _file(self) -> tuple[int, bytes, dict]:
            name = unquote(urlsplit(self.path).path).removeprefix(FILES)
            path = (server.folder / name).resolve()
            if not path.is_relative_to(server.folder.resolve()) or not path.is_file():
                return 404, b"no such file", {}
            headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
            size = path.stat().st_size
            try:
                bounds = _byte_range(self.headers.get("Range"), size)
            except ValueError:
                return 416, b"", {"Content-Range": f"bytes */{size}"}
            if self.command == "HEAD":
                return 200, b"", {**headers, "Content-Length": str(size)}
            with path.open("rb") as file:
                if bounds is None:
                    return 200, file.read(), headers
                file.seek(bounds[0])
                body = file.read(bounds[1] - bounds[0] + 1)
            return 206, body, {**headers, "Content-Range": f"bytes {bounds[0]}-{bounds[1]}/{size}"}

        def do_GET(self) -> None:
            """Serve a file or an answer of the API."""
            is_file = self.path.startswith(FILES)
            self._respond(self._file if is_file else lambda: self._api(None))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            """Answer a search."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._respond(lambda: self._api(json.loads(body)))

    return Handler

"""The reader `windows`: each block of a file is asked for once, many at a time, and decoded here.

A file's header is read once. The blocks that a batch of windows needs are fetched in file order,
neighbors by one request. Many threads wait for answers, so that a slow server is always asked for as
much as it may be; as many as there are cores decode what has come, and no thread asks for more while
much is left to decode. A block serves all windows that touch it, and a file is handed over when its
windows are filled, while others are on their way.
Files of a kind that `core/tiff.py` does not know go to GDAL.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from workflow_scripts.core import network
from workflow_scripts.core.ranges import MAX_REQUESTS, Ranges
from workflow_scripts.core.rasterio_reader import RasterioReader
from workflow_scripts.core.tiff import DamagedError, Tiff, UnsupportedError, decode_block, read_tiff
from workflow_scripts.core.windows import Cut, Failure, Pixels, Window, locate

logger = logging.getLogger(__name__)

MAX_GAP_BYTES = 8_192
"""Bytes between two blocks that are read along rather than asked around."""
MAX_REQUEST_BYTES = 8 << 20
"""Bytes of one request at most, if it holds more than one block."""
MAX_KEPT_BYTES = 128 << 20
"""Blocks as they came that are kept for later batches, which ask for few of them again."""
_NOWHERE = -(1 << 62)

T = TypeVar("T")


@dataclass(frozen=True)
class _Task:
    """A window to be filled."""

    index: int
    """Among the windows of its file."""
    cut: Cut
    values: np.ndarray


@dataclass
class _File:
    """A file of which windows are wanted."""

    href: str
    tiff: Tiff
    results: list[Pixels | Failure]
    tasks: dict[int, list[_Task]]
    """Block → the windows that touch it."""
    jobs: "list[Future[Future[list[int]]]]" = field(default_factory=list)
    """Requests on their way; each gives the blocks that made trouble."""


class BlockReader:
    """Reads windows block by block; see the module's docstring."""

    def __init__(self, *, cores: int = 1, access: network.Access = network.OPEN) -> None:
        self._ranges = Ranges(access=access)
        self._gdal = RasterioReader(cores=cores, access=access)
        self._cores = cores
        self._of_thread = threading.local()
        self._headers: dict[str, Tiff | UnsupportedError] = {}
        self._kept = _KeptBlocks()
        self._n_read = 0

    @property
    def n_opened(self) -> int:
        """Files opened so far."""
        return self._n_read + self._gdal.n_opened

    @property
    def n_requests(self) -> int:
        """Requests answered so far, without GDAL's."""
        return self._ranges.n_requests

    @property
    def n_bytes(self) -> int:
        """Bytes received so far, without GDAL's."""
        return self._ranges.n_bytes

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close all files."""
        self._gdal.__exit__(kind, error, trace)

    def read(self, wanted: Mapping[str, Sequence[Window]]) -> Iterator[tuple[str, list[Pixels | Failure]]]:
        """Read the windows of each file; files in their order, those that made trouble last."""
        by_gdal: dict[str, Sequence[Window]] = {}
        asked: list[_File] = []
        pool, decoding = ThreadPoolExecutor(MAX_REQUESTS), ThreadPoolExecutor(self._cores)
        room = threading.BoundedSemaphore(MAX_REQUESTS + 2 * self._cores)
        try:
            for href, header in zip(wanted, pool.map(self._open, wanted), strict=True):
                if isinstance(header, Failure):
                    yield href, [header] * len(wanted[href])
                elif isinstance(header, UnsupportedError):
                    by_gdal[href] = wanted[href]
                else:
                    file = _plan(href, wanted[href], header)
                    file.jobs = [
                        pool.submit(self._ask, file, blocks, decoding, room)
                        for blocks in _requests(header, file.tasks, partial(self._kept.has, href))
                    ]
                    asked.append(file)
            again = []
            for file in _taken(asked):
                if left := [block for job in _taken(file.jobs) for block in job.result().result()]:
                    again.append((file, pool.submit(self._fill, file, left)))
                else:
                    yield file.href, file.results
            for file, job in again:
                for block, failure in job.result().items():
                    for task in file.tasks[block]:
                        file.results[task.index] = failure
                yield file.href, file.results
        finally:
            pool.shutdown(cancel_futures=True)
            decoding.shutdown()
        yield from self._gdal.read(by_gdal)

    def _open(self, href: str) -> Tiff | Failure | UnsupportedError:
        try:
            return network.retry(lambda: self._header(href), f"reading {network.file_name(href)}")
        except RuntimeError as error:
            return Failure(str(error), isinstance(error, network.UnavailableError))

    def _header(self, href: str) -> Tiff | UnsupportedError:
        header = self._headers.get(href)
        if header is None:
            try:
                header = read_tiff(lambda first, last: bytes(self._ranges.read(href, first, last)))
                self._n_read += 1
            except UnsupportedError as error:
                header = error
            self._headers[href] = header
        return header

    def _ask(
        self,
        file: _File,
        blocks: Sequence[int],
        decoding: ThreadPoolExecutor,
        room: threading.BoundedSemaphore,
    ) -> "Future[list[int]]":
        """Fetch blocks once and have them decoded; the future gives those with which something went wrong."""
        room.acquire()
        try:
            pieces = self._fetch(file.href, file.tiff, blocks)
        except (RuntimeError, UnsupportedError) as error:
            logger.debug("%s", error)
            room.release()
            done: Future[list[int]] = Future()
            done.set_result(list(blocks))
            return done
        return decoding.submit(self._decode_all, file, pieces, room)

    def _decode_all(
        self,
        file: _File,
        pieces: Iterable[tuple[int, bytes | memoryview | None]],
        room: threading.BoundedSemaphore,
    ) -> list[int]:
        """Decode blocks into the windows that they touch; give the damaged ones."""
        damaged = []
        try:
            for block, data in pieces:
                try:
                    self._decode(file, block, data)
                except DamagedError:
                    damaged.append(block)
        finally:
            room.release()
        return damaged

    def _decode(self, file: _File, block: int, data: bytes | memoryview | None) -> None:
        # memory that is new for every block would be faulted in each time
        if not hasattr(self._of_thread, "buffer"):
            self._of_thread.buffer = np.empty(0, np.uint8)
        try:
            _scatter(file.tiff, block, data, file.tasks[block], self._of_thread.buffer)
        except DamagedError:
            self._kept.drop(file.href, block)
            raise

    def _fill(self, file: _File, blocks: Sequence[int]) -> dict[int, Failure]:
        """Fetch blocks that made trouble with patience, decode them; give what failed."""
        href, left = file.href, list(blocks)

        def proceed() -> None:
            tiff = self._header(href)
            if not isinstance(tiff, Tiff):
                raise RuntimeError(f"{network.file_name(href)}: {tiff}")
            file.tiff = tiff
            message = ""
            for run in _requests(tiff, left, partial(self._kept.has, href)):
                for block, data in self._fetch(href, tiff, run):
                    try:
                        self._decode(file, block, data)
                    except DamagedError as error:
                        message = f"{network.file_name(href)}: {error}"
                    else:
                        left.remove(block)
            if not message:
                return
            if not network.is_remote(href):
                raise RuntimeError(message)
            self._headers.pop(href, None)  # the addresses of the blocks may be what was damaged
            raise network.TransientError(message)

        try:
            network.retry(proceed, f"reading {network.file_name(href)}")
        except UnsupportedError as error:
            return dict.fromkeys(left, Failure(f"{network.file_name(href)}: {error}"))
        except RuntimeError as error:
            failure = Failure(str(error), isinstance(error, network.UnavailableError))
            return dict.fromkeys(left, failure)
        return {}

    def _fetch(
        self, href: str, tiff: Tiff, blocks: Sequence[int]
    ) -> Iterable[tuple[int, bytes | memoryview | None]]:
        """Give the bytes of blocks that lie side by side; None for a block that is not there."""
        here = [block for block in blocks if tiff.sizes[block]]
        data = {block: self._kept.get(href, block) for block in here}
        if any(value is None for value in data.values()):
            first = int(tiff.offsets[here[0]])
            content = self._ranges.read(href, first, int(tiff.offsets[here[-1]] + tiff.sizes[here[-1]]))
            for block in here:
                start = int(tiff.offsets[block]) - first
                data[block] = content[start : start + int(tiff.sizes[block])]
                if network.is_remote(href):
                    self._kept.put(href, block, data[block])
        return [(block, data.get(block)) for block in blocks]


class _KeptBlocks:
    """The last blocks that came over the network, as they came, up to about `MAX_KEPT_BYTES`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], bytes | memoryview] = OrderedDict()
        self._n_bytes = 0

    def has(self, href: str, block: int) -> bool:
        """Whether a block is kept."""
        with self._lock:
            return (href, block) in self._blocks

    def get(self, href: str, block: int) -> bytes | memoryview | None:
        """Give a block, None if it is not kept."""
        with self._lock:
            return self._blocks.get((href, block))

    def put(self, href: str, block: int, data: bytes | memoryview) -> None:
        """Keep a block, and forget the oldest beyond the limit."""
        with self._lock:
            if (href, block) not in self._blocks:
                self._n_bytes += len(data)
            self._blocks[href, block] = data
            while self._n_bytes > MAX_KEPT_BYTES:
                self._n_bytes -= len(self._blocks.popitem(last=False)[1])

    def drop(self, href: str, block: int) -> None:
        """Forget a block that is damaged."""
        with self._lock:
            self._n_bytes -= len(self._blocks.pop((href, block), b""))


def _taken(entries: list[T]) -> Iterator[T]:
    """Give the entries of a list in order and forget each, so that its memory is free once it is used."""
    entries.reverse()
    while entries:
        yield entries.pop()


def _plan(href: str, windows: Sequence[Window], tiff: Tiff) -> _File:
    """Lay out the arrays of a file's windows; those that do not fit fail."""
    results: list[Pixels | Failure] = []
    tasks: dict[int, list[_Task]] = {}
    for index, window in enumerate(windows):
        try:
            cut = locate(window, tiff.raster)
        except ValueError as error:
            results.append(Failure(f"{network.file_name(href)}: {error}"))
            continue
        is_inside = cut.rows[1] - cut.rows[0] == cut.columns[1] - cut.columns[0] == cut.n
        values = (np.empty if is_inside else np.zeros)((cut.n, cut.n), window.dtype)
        results.append(Pixels(values, cut.x, cut.y))
        for block in tiff.blocks(cut.rows, cut.columns):
            tasks.setdefault(block, []).append(_Task(index, cut, values))
    return _File(href, tiff, results, tasks)


def _requests(tiff: Tiff, blocks: Iterable[int], is_kept: Callable[[int], bool]) -> list[list[int]]:
    """Group blocks into those that one request brings, in file order; kept ones by themselves."""
    groups: list[list[int]] = []
    start, end = 0, _NOWHERE
    for block in sorted(blocks, key=lambda block: int(tiff.offsets[block])):
        first, last = int(tiff.offsets[block]), int(tiff.offsets[block] + tiff.sizes[block])
        is_there = tiff.sizes[block] > 0 and not is_kept(block)
        if is_there and 0 <= first - end <= MAX_GAP_BYTES and last - start <= MAX_REQUEST_BYTES:
            groups[-1].append(block)
            end = last
            continue
        groups.append([block])
        start, end = (first, last) if is_there else (0, _NOWHERE)
    return groups


def _scatter(
    tiff: Tiff, block: int, data: bytes | memoryview | None, tasks: Sequence[_Task], buffer: np.ndarray
) -> None:
    """Decode what the windows need of a block, and copy it into each."""
    row, column = tiff.corner(block)
    shares = []
    for task in tasks:
        rows = max(task.cut.rows[0], row), min(task.cut.rows[1], row + tiff.block_height)
        columns = max(task.cut.columns[0], column), min(task.cut.columns[1], column + tiff.block_width)
        shares.append((task, rows, columns))
    if data is None:
        for task, rows, columns in shares:
            task.values[task.cut.destination(rows, columns)] = tiff.fill
        return
    first, last = min(rows[0] for _, rows, _ in shares), max(rows[1] for _, rows, _ in shares)
    end = max(columns[1] for _, _, columns in shares)
    values = decode_block(tiff, data, rows=(first - row, last - row), last_column=end - column, buffer=buffer)
    for task, rows, columns in shares:
        part = values[rows[0] - first : rows[1] - first, columns[0] - column : columns[1] - column]
        task.values[task.cut.destination(rows, columns)] = part

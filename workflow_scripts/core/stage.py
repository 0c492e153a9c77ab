"""What every stage does around its work: logging, clear errors, files that appear whole."""

import gc
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

LOG = logging.getLogger(__name__)
PROGRESS_S = 20
"""Seconds between two lines of progress in a job's log."""
Part = TypeVar("Part")

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run_stage(main: Callable[[Any], None], job: Any) -> None:
    """Run a stage's `main` for a Snakemake job and turn its failures into one clear message.

    Everything logged goes to the job's log file; warnings and the final error also to the
    terminal. Errors that stages raise on purpose end in their message, other ones in a traceback
    followed by it. The process ends with status 1 on failure.
    """
    gc.freeze()  # what imports left is no garbage: collections need not look through it
    log_path = Path(str(job.log[0]))
    log_path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(log_path, mode="w")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, handlers=[file, terminal], force=True)
    logging.captureWarnings(True)
    logger = logging.getLogger("stage")
    wildcards = ", ".join(f"{key} {value!r}" for key, value in dict(job.wildcards).items())
    where = f"{job.rule} ({wildcards})" if wildcards else str(job.rule)
    try:
        main(job)
    except MemoryError:
        logger.error("%s: out of memory. Give the rule more mem_mb in the profile.", where)
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None and not isinstance(error, FileNotFoundError):
            logger.debug("", exc_info=True)
        logger.error("%s: %s", where, error)
        raise SystemExit(1) from None
    except (ValueError, RuntimeError) as error:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        place = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"
        logger.error("%s: %s [%s]", where, error, place)
        raise SystemExit(1) from None
    except Exception as error:
        logger.exception("%s: unexpected %s: %s", where, type(error).__name__, error)
        raise SystemExit(1) from None


def progress(parts: Iterable[Part], total: int, *, what: str, every_s: float = PROGRESS_S) -> Iterator[Part]:
    """Pass parts on, and log now and then how many are done and how long the rest will take.

    Parameters
    ----------
    parts : whatever a long stage works through
    total : how many there are
    what : their name in the log, plural
    every_s : least time between two lines, seconds; a stage that is done sooner logs none
    """
    started = last = time.monotonic()
    for done, part in enumerate(parts, start=1):
        yield part
        now = time.monotonic()
        if now - last >= every_s and done < total:
            last, remaining = now, (now - started) / done * (total - done)
            left = timedelta(seconds=round(remaining))
            LOG.info("%d of %d %s (%d %%), about %s left", done, total, what, 100 * done // total, left)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed to disk and takes its place.

    A failure, or a kill, leaves `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON atomically, keys in the given order, NaN refused."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; the error names it."""
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}). Delete it and run again.") from None

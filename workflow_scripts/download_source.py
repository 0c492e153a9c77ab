"""Bring one file of `sources` to `resources/`, checked against its SHA-256.

Reads: a web address, or a local file to copy.
Writes: the file, once it is complete and its checksum holds. What has arrived of a download that
broke off is kept beside it (`.part`) and continued by the next attempt or the next run, if the server
says by ETag or date that the file is still the same.
"""

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import requests

from workflow_scripts.core.network import PASSING_STATUS, TIMEOUT_S, TransientError, redact, retry
from workflow_scripts.core.stage import atomic_path, read_json, run_stage, write_json

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 18


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def continue_download(url: str, part: Path) -> None:
    """Fetch what is missing of a file; a file that has changed is fetched from the beginning.

    Parameters
    ----------
    url : http or https address
    part : where the bytes go; `<part>.json` beside it remembers which version they belong to

    Raises
    ------
    TransientError
        If the connection breaks or the server is busy; the bytes that came stay in `part`.
    RuntimeError
        If the server refuses.
    """
    note = part.with_name(part.name + ".json")
    version = read_json(note) if note.exists() and part.exists() else {}
    # the address may hold a token
    address = hashlib.sha256(url.encode()).hexdigest()
    n_have = part.stat().st_size if version.get("address") == address and version.get("validator") else 0
    headers = {"Accept-Encoding": "identity"}
    if n_have:
        headers |= {"Range": f"bytes={n_have}-", "If-Range": version["validator"]}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        _check_status(response, url, part)
        is_rest = response.status_code == 206
        etag = response.headers.get("ETag", "")
        is_strong = etag and not etag.startswith("W/")
        validator = etag if is_strong else response.headers.get("Last-Modified")
        write_json(note, {"address": address, "validator": validator})
        n_got = 0
        # counted below: urllib3's own check would throw away the last bytes that came
        response.raw.enforce_content_length = False
        with open(part, "ab" if is_rest else "wb") as file:
            try:
                for block in response.iter_content(BLOCK_BYTES):
                    file.write(block)
                    n_got += len(block)
            except (requests.RequestException, ConnectionError) as error:
                raise TransientError(f"{redact(url)}: broke off after {n_got} bytes ({error})") from error
        expected = response.headers.get("Content-Length")
    if expected is not None and n_got != int(expected):
        raise TransientError(f"{redact(url)}: {n_got} of {expected} bytes came")
    logger.info("%s: %d bytes came, %d were kept from before", redact(url), n_got, n_have * is_rest)


def _check_status(response: requests.Response, url: str, part: Path) -> None:
    """Raise unless the answer holds bytes of the file."""
    status = response.status_code
    if status == 416:
        part.unlink(missing_ok=True)
        raise TransientError(f"{redact(url)}: the server has fewer bytes than were kept; starting again")
    if status in PASSING_STATUS and status != 403:
        raise TransientError(f"{redact(url)}: HTTP status {status}")
    if not response.ok:
        raise RuntimeError(
            f"{redact(url)}: HTTP status {status} ({response.reason}). "
            "Correct the url under `sources` in config.yaml, or name a local file there."
        )


def check(path: Path, sha256: str | None, *, url: str) -> None:
    """Compare a file with its checksum; without one, log what to write into the config.

    Raises
    ------
    ValueError
        If they differ. The file is deleted: a later run fetches it anew.
    """
    found = sha256_of(path)
    if sha256 is None:
        logger.warning("%s: no sha256 under `sources`, so not checked. The file has %s.", redact(url), found)
    elif found != sha256:
        n_bytes = path.stat().st_size
        path.unlink()
        raise ValueError(
            f"{redact(url)}: the file ({n_bytes} bytes) has SHA-256 {found}, but `sources` says {sha256}. "
            "Either it came damaged (run again), or the publisher changed it (look at it, then correct "
            "the sha256 in config.yaml)."
        )


def main(job: Any) -> None:
    """Write one file of `sources`."""
    url, sha256, target = job.params.url, job.params.sha256, Path(str(job.output.file))
    target.parent.mkdir(parents=True, exist_ok=True)
    if urlparse(url).scheme not in ("http", "https"):
        if not Path(url).is_file():
            raise FileNotFoundError(f"sources: no file {url!r}. Correct the path in config.yaml.")
        with atomic_path(target) as temporary:
            shutil.copyfile(url, temporary)
            check(temporary, sha256, url=url)
        return
    part = target.with_name(target.name + ".part")
    retry(lambda: continue_download(url, part), f"download of {redact(url)}")
    check(part, sha256, url=url)
    os.replace(part, target)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


if "snakemake" in globals():
    run_stage(main, snakemake)  # noqa: F821

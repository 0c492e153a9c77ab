"""The network at one place: what may be asked again, how long to wait, and how files are reached.

Signed addresses are used at once and never stored, logged or put into an error message.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd
import rasterio
import requests
from rasterio.errors import RasterioError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_forgotten: dict[str, float] = {}
"""Token → when it was last replaced, on the clock of `time.monotonic`."""

ATTEMPTS = 5
"""How often a failing request is made before the job fails."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 120.0
LONGEST_REST_S = 3600.0
"""A server's `Retry-After` is obeyed up to this; one that wants more is not waited for."""
TIMEOUT_S = 60
NEW_TOKEN_AFTER_S = 60.0
"""A token that is refused before its end is replaced this often at most."""
PASSING_STATUS = (403, 408, 425, 429, 500, 502, 503, 504)
"""HTTP states worth another try: 403 is also an expired token and Earth Search's throttling."""

GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_TIMEOUT": str(TIMEOUT_S),
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "FALSE",
    # what a broken answer left behind must not be served again on the next attempt
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http",
}


class TransientError(RuntimeError):
    """A failure that may pass; `retry` catches it."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(RuntimeError):
    """A service failed on every attempt; who can do without it catches this."""


def redact(text: object) -> str:
    """Remove query strings and passwords, which may be secret, from addresses in a message."""
    without_query = re.sub(r"\?[^\s'\"<>)]+", "?…", str(text))
    return re.sub(r"://[^\s/@]+@", "://…@", without_query)


def retry(
    call: Callable[[], T],
    what: str,
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it succeeds, waiting longer after each passing failure.

    Parameters
    ----------
    call : raises `TransientError`, or requests' connection errors, where another try may help
    what : for messages, such as ``"search of tile 32TQT in earth-search"``
    attempts : calls at most
    sleep : waits for a number of seconds

    Raises
    ------
    UnavailableError
        After the last attempt, with the last failure's message; at once where the server asks for more
        time than `LONGEST_REST_S`.
    """
    for attempt in range(1, attempts + 1):
        pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
        try:
            return call()
        except TransientError as error:
            failure = redact(error)
            pause = max(pause, error.retry_after_s or 0)
            if pause > LONGEST_REST_S:
                message = f"{what}: {failure}; the server wants no request for {pause / 3600:.1f} h. Run again then."
                raise UnavailableError(message) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            failure = redact(error)
        if attempt < attempts:
            logger.info("%s: %s; attempt %d of %d in %.0f s", what, failure, attempt + 1, attempts, pause)
            sleep(pause)
    raise UnavailableError(f"{what}: failed {attempts} times, last with: {failure}. Try again later.")


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    moment = pd.to_datetime(value, utc=True, errors="coerce")
    if pd.isna(moment):
        return None
    return max(0.0, (moment - pd.Timestamp.now("UTC")).total_seconds())


# ---- opening files ---------------------------------------------------------------------------


def is_remote(href: str) -> bool:
    """Tell whether an address needs the network."""
    return "://" in str(href)


@dataclass(frozen=True)
class Access:
    """How the files of a catalog are reached."""

    sign: str | None = None
    """How addresses are signed; None for open data."""
    s3: Mapping[str, Any] = field(default_factory=dict)
    """Options of `s3://` addresses: `anonymous`, `requester_pays`, `region`, `endpoint`; keys are
    taken from the environment."""

    @classmethod
    def of(cls, catalog: Mapping[str, Any]) -> Self:
        """Take the options of a catalog's entry in config.yaml."""
        return cls(catalog.get("sign"), dict(catalog.get("s3") or {}))


OPEN = Access()
"""Files that anybody may read."""


def sign(href: str, access: Access) -> str:
    """Give an address with a token where the catalog asks for one.

    Tokens are kept by the signing library and renewed before they end.
    """
    if access.sign is None:
        return href
    if access.sign == "planetary-computer":
        import planetary_computer

        return planetary_computer.sign_url(href)
    raise ValueError(f"catalog option sign = {access.sign!r} is not one of ['planetary-computer']")


def forget_token(url: str, access: Access) -> None:
    """Have a new token asked for, after a signed address was refused although its token has not ended.

    Once a minute at most: what is refused with any token must not become a flood of requests for tokens.
    """
    if access.sign != "planetary-computer":
        return
    from planetary_computer import sas

    for key, held in list(sas.TOKEN_CACHE.items()):
        is_due = time.monotonic() - _forgotten.get(key, -np.inf) > NEW_TOKEN_AFTER_S
        if held.token in url and is_due:  # another thread may have a new one already
            _forgotten[key] = time.monotonic()
            sas.TOKEN_CACHE.pop(key, None)


def open_href(href: str, *, access: Access = OPEN) -> rasterio.DatasetReader:
    """Open a raster file of an item, local or remote, once and without a second try.

    Raises
    ------
    TransientError
        If a remote file cannot be opened now; `retry` calls again, with a fresh token.
    RuntimeError
        If there is no such file, or it is damaged.
    """
    for key, value in GDAL_OPTIONS.items():
        os.environ.setdefault(key, value)
    # GDAL's own messages carry signed addresses
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    url = ""
    try:
        url = sign(href, access)
        with rasterio.Env(**_s3_options(access)):
            return rasterio.open(_gdal_path(url))
    except RasterioError as error:
        if "response code: 403" in str(error):
            forget_token(url, access)
        raise read_failure(href, error) from None
    except requests.RequestException as error:
        raise TransientError(f"no token for {file_name(href)}: {type(error).__name__}") from None


def _s3_options(access: Access) -> dict[str, str]:
    """Give GDAL's names of the options for s3://."""
    options = access.s3
    found = {}
    if options.get("anonymous"):
        found["AWS_NO_SIGN_REQUEST"] = "YES"
    if options.get("requester_pays"):
        found["AWS_REQUEST_PAYER"] = "requester"
    if options.get("region"):
        found["AWS_REGION"] = options["region"]
    if options.get("endpoint"):
        scheme, _, host = options["endpoint"].partition("://")
        found |= {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO" if scheme == "http" else "YES"}
        found["AWS_VIRTUAL_HOSTING"] = "FALSE"
    return found


def read_failure(href: str, error: Exception) -> RuntimeError:
    """Turn a failure of GDAL into ours, naming the file without its token."""
    message = f"{file_name(href)}: {redact(error)}"
    status = re.search(r"response code[: ]+(\d{3})", str(error))
    lasting = status is not None and int(status.group(1)) not in PASSING_STATUS
    if is_remote(href) and not lasting and "does not exist" not in str(error):
        return TransientError(message)
    return RuntimeError(message)


def file_name(href: str) -> str:
    """Give the last parts of an address, without query: enough to find the file again."""
    return "/".join(str(href).split("?")[0].rstrip("/").split("/")[-2:])


def _gdal_path(href: str) -> str:
    if href.startswith(("http://", "https://")):
        return f"/vsicurl/{href}"
    if href.startswith("s3://"):
        return f"/vsis3/{href.removeprefix('s3://')}"
    return href.removeprefix("file://")

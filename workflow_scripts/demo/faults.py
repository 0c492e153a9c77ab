"""What can go wrong with a web server, to be asked for by tests."""

import random
from dataclasses import dataclass


@dataclass
class Fault:
    """Something that goes wrong with requests whose path and query match a pattern."""

    pattern: str
    """Regular expression, searched in the decoded path and query."""
    kind: str
    """``status`` (answer with `status`), ``truncate`` (promise the whole body, send half of it and
    hang up) or ``corrupt`` (flip bytes of the body)."""
    status: int = 503
    retry_after_s: float | None = None
    times: int | None = None
    """How many requests fail before all is well again; None: always."""
    every: int = 1
    """Only each n-th matching request fails: 20 for 5 %."""
    n_hits: int = 0
    n_seen: int = 0
    share: float = 1.0
    """Share of the matching requests that fail, drawn at random."""
    seed: int = 0
    """Of the draw."""

    def __post_init__(self) -> None:
        """Refuse unknown kinds."""
        self._random = random.Random(self.seed)
        if self.kind not in ("status", "truncate", "corrupt"):
            raise ValueError(f"fault kind {self.kind!r} is not one of 'status', 'truncate', 'corrupt'")

    def strikes(self) -> bool:
        """Tell whether a matching request fails; counts it."""
        self.n_seen += 1
        return self.n_seen % self.every == 0 and (self.share >= 1 or self._random.random() < self.share)


def unavailable(pattern: str, *, times: int | None = None) -> Fault:
    """Answer 503."""
    return Fault(pattern, "status", status=503, times=times)


def too_many_requests(pattern: str, *, retry_after_s: float = 1, times: int | None = None) -> Fault:
    """Answer 429 with Retry-After."""
    return Fault(pattern, "status", status=429, retry_after_s=retry_after_s, times=times)


def missing(pattern: str) -> Fault:
    """Answer 404, always."""
    return Fault(pattern, "status", status=404)


def truncated(pattern: str, *, times: int | None = None) -> Fault:
    """Send half of each body."""
    return Fault(pattern, "truncate", times=times)


def corrupted(pattern: str, *, times: int | None = None) -> Fault:
    """Send bodies with damaged bytes."""
    return Fault(pattern, "corrupt", times=times)


def damage(body: bytes) -> bytes:
    """Flip every 97th byte, beginning with the first."""
    damaged = bytearray(body)
    damaged[::97] = bytes(value ^ 0xFF for value in damaged[::97])
    return bytes(damaged)

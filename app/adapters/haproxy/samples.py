"""Reads HAProxy's log lines: what the clients of one role got. Pure.

A line, as config.py has it written: unix time in ms of the answer, backend, server, HTTP status, total and
request-reading time in ms, how the session ended, retries, gRPC status (`-` where it was none).
"""

import math
import re
from collections import Counter
from typing import Literal, NamedTuple

from app.adapters.haproxy.words import CANARY, PLACES
from app.domain.canary import Sample

Role = Literal["stable", "canary"]

# gRPC statuses that the server is to blame for, and 3, INVALID_ARGUMENT, which is gRPC's HTTP 400.
_GRPC_FAILED = {b"2", b"3", b"4", b"8", b"13", b"14", b"15"}
_NUMBER = rb"(-?\d{1,10})"


class _Outcome(NamedTuple):
    """What one request came to; `ms` is how long the client waited for the answer."""

    failed: bool
    redispatched: bool
    ms: int


def sample(lines: bytes, environment: str, model: str, role: Role, since: float) -> Sample:
    """Count the inference requests that ended at `since` (unix seconds) or later; lines of any other form are skipped.

    Failed is: a status of 500 or more, HTTP 400, no answer, and gRPC's equals. A model that refuses what the old one
    took answers 400 or 500, and so does Triton to malformed input; a client that sends rubbish raises the failures of
    both roles. 401, 404 and 413 are the caller's. A request that another server had to answer because this role's
    broke off counts as failed here although the client saw no error; its time counts for neither. A client that gave
    up waiting is a request like any other: not failed, but its wait is in the p99.

    p99 is the nearest rank, in whole milliseconds, from the request's last byte read to the answer's last byte sent.
    """
    backend = f"{environment}:{model}"
    places = (CANARY,) if role == CANARY else PLACES
    others = tuple(place for place in (CANARY, *PLACES) if place not in places)
    own = _outcomes(lines, backend, places, rb"\+?", since)
    saved = sum(_outcomes(lines, backend, others, rb"\+", since).values())
    failed = sum(count for outcome, count in own.items() if outcome.failed)
    waits: Counter[int] = Counter()
    for outcome, count in own.items():
        waits[outcome.ms] += 0 if outcome.redispatched else count
    return Sample(own.total() + saved, failed + saved, p99(waits))


def p99(waits: Counter[int]) -> float | None:
    """The nearest-rank 99th percentile of values with their counts; None of nothing."""
    rank = math.ceil(waits.total() * 0.99)
    for value in sorted(waits):
        rank -= waits[value]
        if rank <= 0 < waits[value]:
            return float(value)
    return None


def _outcomes(lines: bytes, backend: str, servers: tuple[str, ...], sign: bytes, since: float) -> Counter[_Outcome]:
    """Outcomes and how often they came. Most lines of a busy second differ in their time only, and there may be
    hundreds of thousands: so each ending is read once, however often it occurs."""
    route = re.escape(backend).encode() + b":(?:http|grpc) (?:" + "|".join(servers).encode() + b")"
    ending = b" ".join([_NUMBER, _NUMBER, _NUMBER, rb"(\S\S)", b"(" + sign + rb"\d+)", rb"(\S+)"])
    pattern = re.compile(rb"^(\d{1,15}) " + route + b" " + ending + b"$", re.MULTILINE)
    first = since * 1000
    endings: Counter[tuple[bytes, ...]] = Counter(
        tuple(rest) for at, *rest in pattern.findall(lines) if int(at) >= first
    )
    outcomes: Counter[_Outcome] = Counter()
    for fields, count in endings.items():
        outcomes[_outcome(*fields)] += count
    return outcomes


def _outcome(status: bytes, total: bytes, reading: bytes, ended: bytes, retries: bytes, grpc: bytes) -> _Outcome:
    gave_up = ended.startswith(b"C")
    failed = not gave_up and (int(status) >= 500 or status in (b"400", b"-1") or grpc in _GRPC_FAILED)
    return _Outcome(failed, retries.startswith(b"+"), max(0, int(total) - max(0, int(reading))))

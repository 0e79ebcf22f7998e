"""What HAProxy's log lines say of one role: counted right, whatever else is in the log."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.haproxy.samples import Role, sample

ENVIRONMENT, MODEL = "production", "airbnb.price"
ROLES = {"blue": "stable", "green": "stable", "canary": "canary"}


@dataclass(frozen=True)
class Line:
    """One request as the log has it."""

    at: int = 1_700_000_000_000
    server: str = "canary"
    status: int = 200
    total: int = 7
    reading: int = 0
    ended: str = "--"
    retries: str = "0"
    grpc: str = "-"
    backend: str = f"{ENVIRONMENT}:{MODEL}:http"

    @property
    def text(self) -> str:
        fields = (self.at, self.backend, self.server, self.status, self.total, self.reading)
        return " ".join(map(str, [*fields, self.ended, self.retries, self.grpc])) + "\n"


lines = st.builds(
    Line,
    at=st.integers(1_700_000_000_000, 1_700_000_009_999),
    server=st.sampled_from([*ROLES, "<NOSRV>"]),
    status=st.sampled_from([200, 400, 404, 500, 503, -1]),
    total=st.integers(0, 70_000),
    reading=st.integers(-1, 10),
    ended=st.sampled_from(["--", "SH", "CH", "sH", "CD"]),
    retries=st.sampled_from(["0", "2", "+1"]),
    grpc=st.sampled_from(["-", "0", "5", "13"]),
    backend=st.sampled_from(
        [f"{ENVIRONMENT}:{MODEL}:{kind}" for kind in ("http", "grpc", "probe")] + ["production:x:http"]
    ),
)
# Letters of the real lines, so that garbage comes close to them.
garbage = st.text(alphabet="0123456789 :+-.abcdeghilnprtuy<>\r\x00\u00e9", max_size=60).map(lambda text: f"x{text}\n")


def expected(seen: list[Line], role: Role, since: float) -> tuple[int, int, float | None]:
    """The same by the plainest means."""
    asked = [
        line
        for line in seen
        if line.backend in (f"{ENVIRONMENT}:{MODEL}:http", f"{ENVIRONMENT}:{MODEL}:grpc") and line.at >= since * 1000
    ]
    own = [line for line in asked if ROLES.get(line.server) == role]
    saved = [line for line in asked if ROLES.get(line.server, role) != role and line.retries.startswith("+")]
    failed = [
        line
        for line in own
        if line.ended[0] != "C" and (line.status >= 500 or line.status in (400, -1) or line.grpc == "13")
    ]
    waits = sorted(max(0, line.total - max(0, line.reading)) for line in own if not line.retries.startswith("+"))
    p99 = float(waits[math.ceil(len(waits) * 0.99) - 1]) if waits else None
    return len(own) + len(saved), len(failed) + len(saved), p99


@given(st.lists(st.one_of(lines, garbage)), st.sampled_from(["stable", "canary"]), st.integers(-1, 11))
def test_it_counts_what_is_there_and_skips_what_is_not(log: list[Line | str], role: Role, second: int) -> None:
    text = "".join(line if isinstance(line, str) else line.text for line in log).encode()
    since = 1_700_000_000 + second
    got = sample(text, ENVIRONMENT, MODEL, role, since)
    assert (got.requests, got.failed, got.p99_ms) == expected(
        [line for line in log if isinstance(line, Line)], role, since
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(log: bytes) -> None:
    assert sample(log, ENVIRONMENT, MODEL, "canary", 0).failed == 0


@pytest.mark.parametrize(
    ("line", "requests", "failed"),
    [
        (Line(), 1, 0),
        (Line(status=500), 1, 1),
        (Line(status=400), 1, 1),
        (Line(status=404), 1, 0),
        (Line(status=504, ended="sH"), 1, 1),
        (Line(status=-1, ended="CH"), 1, 0),
        (Line(status=-1, ended="SD"), 1, 1),
        (Line(grpc="13", backend=f"{ENVIRONMENT}:{MODEL}:grpc"), 1, 1),
        (Line(grpc="5", backend=f"{ENVIRONMENT}:{MODEL}:grpc"), 1, 0),
        (Line(server="blue"), 0, 0),
        (Line(server="green", retries="+1"), 1, 1),
        (Line(server="blue", retries="1"), 0, 0),
        (Line(retries="+1"), 1, 0),
        (Line(server="<NOSRV>", status=503), 0, 0),
        (Line(backend="production:airbnb-price:http"), 0, 0),
        (Line(backend=f"x{ENVIRONMENT}:{MODEL}:http"), 0, 0),
    ],
)
def test_who_is_to_blame(line: Line, requests: int, failed: int) -> None:
    got = sample(line.text.encode(), ENVIRONMENT, MODEL, "canary", 0)
    assert (got.requests, got.failed) == (requests, failed)


def test_the_p99_is_the_nearest_rank_of_the_servers_time() -> None:
    log = "".join(Line(total=ms, reading=0).text for ms in range(1, 201)) + Line(total=900, reading=850).text
    assert sample(log.encode(), ENVIRONMENT, MODEL, "canary", 0).p99_ms == 198
    assert sample(b"", ENVIRONMENT, MODEL, "canary", 0).p99_ms is None

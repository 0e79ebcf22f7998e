"""Renders the backends of one route: which server answers, which are healthy, and what the answer says of itself."""

import zlib
from collections.abc import Iterator

from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.splits import Split, Target
from app.adapters.haproxy.words import BUCKETS, CANARY, NOWHERE, PLACES, bracketed, json_reply


def probe(split: Split) -> Iterator[str]:
    """Checks stable apart from the canary, whose check asks more than stable's health may depend on."""
    yield f"backend {split.section('probe')}"
    yield "  timeout check 1s"
    yield from _ready_check(split)
    yield "  default-server check inter 1s fastinter 250ms downinter 500ms fall 3 rise 1"
    for place, target in zip(PLACES, (split.stable, None), strict=True):
        yield f"  server {place} {_at(target, 'http')}{'' if target else ' disabled'}"


def _ready_check(split: Split) -> Iterator[str]:
    yield "  option httpchk"
    yield "  http-check connect"
    yield from _get(f"/v2/models/{split.model}/ready", "triton")


def _lease_check(layout: Layout, split: Split) -> Iterator[str]:
    """The second half of the canary's check: is its controller alive and does it vouch for it?"""
    host, port = bracketed(layout.lease[0]), layout.lease[1]
    yield f"  http-check connect addr {host} port {port}"
    yield from _get(f"/lease/{split.environment}/{split.model}", f"{host}:{port}")


def _get(path: str, host: str) -> Iterator[str]:
    yield f"  http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {host} hdr Connection close"
    yield "  http-check expect status 200"


def backend(layout: Layout, split: Split, kind: str) -> Iterator[str]:
    yield f"backend {split.section(kind)}"
    yield from _decide(split)
    yield from _answer(layout, kind)
    unavailable = f"no release of {split.model} can answer in environment {split.environment}"
    yield f"  http-error {json_reply(503, unavailable)}"
    protocol = " proto h2" if kind == "grpc" else ""
    for place, target in zip(PLACES, (split.stable, None), strict=True):
        weight = 100 if target else 0
        yield f"  server {place} {_at(target, kind)} track {split.section('probe')}/{place} weight {weight}{protocol}"
    canary = f"  server {CANARY} {_at(split.canary, kind)}"
    if kind == "grpc":
        yield f"{canary} track {split.section('http')}/{CANARY} weight {split.share}{protocol}"
        return
    yield "  timeout check 400ms"
    yield from _ready_check(split)
    yield from _lease_check(layout, split)
    checks = "check inter 400ms fastinter 200ms downinter 400ms fall 2 rise 2"
    # Clients see a dead server before the next check does.
    observe = "observe layer4 error-limit 3 on-error mark-down"
    yield f"{canary} {checks} {observe} weight {split.share}{'' if split.canary else ' disabled'}"


def _decide(split: Split) -> Iterator[str]:
    """Which server answers. A key falls into the same bucket as long as the model has its name, so while the share
    grows keys only move to the canary; models differ in who comes first. A server that is down is passed over."""
    share = f"srv_uweight({split.section('http')}/{CANARY})"
    yield f"  http-request set-log-level info if {{ var(txn.infer) -m found }} {{ {share} gt 0 }}"
    yield f"  http-request set-var(txn.bucket) var(txn.key),xxh32({zlib.crc32(split.model.encode())}),mod({BUCKETS})"
    yield f"  http-request set-var(txn.bucket) rand({BUCKETS}) unless {{ var(txn.key) -m found }}"
    yield f"  http-request set-var(txn.bucket) int(-1) if {{ var(txn.ask) -m str {CANARY} }}"
    yield f"  http-request set-var(txn.bucket) int({BUCKETS}) if {{ var(txn.ask) -m str stable }}"
    yield f"  http-request set-var(txn.share) {share},mul({BUCKETS // 100})"
    yield f"  use-server {CANARY} if {{ var(txn.bucket),sub(txn.share) lt 0 }}"
    for place in PLACES:
        yield f"  use-server {place} if {{ srv_uweight({split.section('http')}/{place}) gt 0 }}"


def _answer(layout: Layout, kind: str) -> Iterator[str]:
    for name in ("Server", "Via"):
        yield f"  http-response del-header {name}"
    yield "  http-response del-header X-Headgate- -m beg"
    yield "  http-response set-var(txn.port) bc_dst_port"
    yield f"  http-response set-var(txn.release) bc_dst,concat(:,txn.port),map({layout.releases_map})"
    yield "  http-response set-header X-Headgate-Release %[var(txn.release)] if { var(txn.release) -m found }"
    if kind == "grpc":
        # Triton sends an error without a body, so that its status stands in the headers.
        yield "  http-response set-var(txn.grpc) res.hdr(grpc-status)"


def _at(target: Target | None, kind: str) -> str:
    where = target or NOWHERE
    return f"{bracketed(where.ip)}:{where.grpc_port if kind == 'grpc' else where.http_port}"

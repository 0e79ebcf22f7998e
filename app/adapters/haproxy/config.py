"""Renders HAProxy's configuration and the files beside it. Pure: the same layout and splits give the same text."""

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.splits import Split, Target

RING = "samples"
# The two places of stable take turns: a server's address changes only while nobody uses it, because HAProxy goes on
# using the connections that were busy at that moment, and they still lead to the old address.
PLACES = ("blue", "green")
CANARY = "canary"
# Address of a server that has none: reserved for documents (RFC 5737), so it can never be somebody's.
NOWHERE = Target("", "192.0.2.1", 9, 9)
# Keys are spread over this many buckets; a share of 1 % is a hundredth of them.
BUCKETS = 10_000

_MODEL_PATH = "^/v2/models/[A-Za-z0-9._-]+(/versions/[0-9]+)?"
_GRPC = "/inference.GRPCInferenceService/"
# A gRPC message starts with 5 bytes of header; then come tag, length (2 bytes at most) and name.
_GRPC_NAME = "bytes(5,203)"
# An answer of HAProxy's own must fit into one buffer.
_LISTED = 8_000
_STATE_COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port"
)


def files(layout: Layout, splits: Sequence[Split], awake: Collection[tuple[str, str]] = ()) -> dict[Path, str]:
    """Every file that HAProxy reads when it starts. `awake` are the routes whose canary may take traffic from the first
    request on, because it was healthy a moment ago; any other canary has to pass its checks first."""
    return {
        layout.models_map: "".join(f"{prefix} {model}\n" for prefix, model in _models(splits)),
        layout.releases_map: "".join(f"{place} {release}\n" for place, release in releases(splits).items()),
        layout.state: _state([split for split in splits if split.canary and split.key not in awake]),
        layout.config: config(layout, splits),
    }


def config(layout: Layout, splits: Sequence[Split]) -> str:
    """The configuration, weights and addresses included, so that a restart changes nothing."""
    return "\n".join([*_global(layout, structure(layout, splits)), *_sections(layout, splits)]) + "\n"


def structure(layout: Layout, splits: Sequence[Split]) -> str:
    """A digest of all that the runtime API cannot change: where it differs, only a reload helps."""
    text = "\n".join([*_global(layout, ""), *_sections(layout, [split.emptied() for split in splits])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def releases(splits: Sequence[Split]) -> dict[str, str]:
    """From `ip:port` to the release there: by address, so that an answer tells who gave it even while roles change."""
    targets = [target for split in splits for target in (split.stable, split.canary) if target]
    return {f"{t.ip}:{port}": t.release for t in targets for port in (t.http_port, t.grpc_port)}


def _models(splits: Sequence[Split]) -> list[tuple[str, str]]:
    return [(_grpc_prefix(model), model) for model in sorted({split.model for split in splits})]


def _grpc_prefix(model: str) -> str:
    # Field 1 as every protobuf writer puts it: tag, length, bytes. `ungrpc()` would need the whole message in one
    # buffer and fails above 16 KiB; a prefix with its length inside is exact and no prefix of another.
    name = model.encode()
    length = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 127 | 128, len(name) >> 7])
    return (b"\x0a" + length + name).hex().upper()


def _state(splits: Sequence[Split]) -> str:
    # Servers start as healthy until their first check. A canary must not: its controller may be dead.
    rows = [
        f"1 {split.section('http')} 3 {CANARY} {split.canary.ip} 0 0 {split.share} {split.share} 0 6 2 0 6 0 0 0 - "
        f"{split.canary.http_port} - 0 0 - - 0"
        for split in splits
        if split.canary
    ]
    return "\n".join(["1", f"# {_STATE_COLUMNS}", *rows]) + "\n"


def _global(layout: Layout, digest: str) -> list[str]:
    return [
        "# Written by Headgate; changes by hand are lost.",
        "global",
        f"  description headgate-{digest}",
        f"  stats socket {layout.admin_socket} mode 600 level admin expose-fd listeners",
        f"  server-state-file {layout.state}",
        "  hard-stop-after 75s",
        # A request that was lost with its server is sent again only if it fits into one buffer.
        "  tune.bufsize 65536",
        f"ring {RING}",
        "  format raw",
        "  maxlen 512",
        f"  size {layout.ring}",
        "defaults",
        "  mode http",
        "  load-server-state-from-file global",
        "  option idle-close-on-response",
        "  option http-buffer-request",
        "  option dontlognull",
        # It is also the pause before a second try when only one server is left.
        "  timeout connect 300ms",
        "  timeout client 60s",
        "  timeout server 60s",
        "  timeout http-request 10s",
        "  timeout http-keep-alive 60s",
        # Inference changes nothing, so a request without an answer may be asked again, of the other server if there is.
        "  retries 3",
        "  option redispatch 1",
        "  retry-on conn-failure empty-response",
        # An idle connection that breaks as it is used is such a case too, so all of them may be shared.
        "  http-reuse always",
    ]


def _sections(layout: Layout, splits: Sequence[Split]) -> Iterator[str]:
    for environment in sorted(layout.environments):
        models = sorted(split.model for split in splits if split.environment == environment)
        yield from _http_frontend(layout, environment, models)
        yield from _grpc_frontend(layout, environment, models)
    for split in sorted(splits, key=lambda split: split.key):
        yield from _probe(split)
        yield from _backend(layout, split, "http")
        yield from _backend(layout, split, "grpc")


def _frontend(layout: Layout, name: str, port: int, protocol: str) -> Iterator[str]:
    yield f"frontend {name}"
    yield f"  bind {layout.bind}:{port}{protocol}"
    yield f"  log ring@{RING} format raw local0"
    # samples.py reads these lines.
    yield '  log-format "%[date(0,ms)] %b %s %ST %Ta %TR %ts %rc %[var(txn.grpc)]"'
    yield "  http-request set-log-level silent"


def _asked(layout: Layout) -> Iterator[str]:
    """Read what the caller asked for, then drop our headers: no model sees them and no caller can fake an answer's."""
    yield "  http-request set-var(txn.key) req.fhdr(X-Headgate-Key) if { req.fhdr(X-Headgate-Key) -m len gt 0 }"
    if layout.token_digest:
        matches = f"{{ req.fhdr(X-Headgate-Variant-Token),sha2(256),hex -m str {layout.token_digest} }}"
        yield f"  http-request set-var(txn.ask) req.fhdr(X-Headgate-Variant) if {matches}"
    yield "  http-request del-header X-Headgate- -m beg"
    too_large = _json(413, f"the request body is larger than {layout.max_body} bytes")
    yield f"  http-request return {too_large} if {{ req.body_size gt {layout.max_body} }}"


def _http_frontend(layout: Layout, environment: str, models: Sequence[str]) -> Iterator[str]:
    yield from _frontend(layout, f"{environment}:http", layout.environments[environment][0], "")
    yield "  http-request return status 200 if { method GET HEAD } { path /v2/health/live /v2/health/ready }"
    yield f"  acl infer path_reg {_MODEL_PATH}/infer$"
    yield f"  acl look path_reg {_MODEL_PATH}(/ready|/config)?$"
    yield "  http-request set-var(txn.infer) bool(true) if infer METH_POST"
    # An allow-list: what Triton offers besides (repository control, shared memory, tracing, logging) stays inside.
    refusal = _json(403, "the router serves infer, ready, config and metadata of models, and /v2/health")
    yield f"  http-request return {refusal} unless {{ var(txn.infer) -m found }} or look {{ method GET HEAD }}"
    yield from _asked(layout)
    # The length of a chunked body is only known at its end; above one buffer it could not be limited.
    unknown_length = "{ req.fhdr(Transfer-Encoding) -m found } { req.body_len ge 32768 }"
    yield f"  http-request return {_json(411, 'a large body needs a Content-Length')} if {unknown_length}"
    yield "  http-request set-var(txn.model) path,field(4,/)"
    yield f"  use_backend {environment}:%[var(txn.model)]:http"
    yield f"  default_backend {environment}:unknown-http"
    yield f"backend {environment}:unknown-http"
    yield f"  http-request return {_json(404, _no_model(environment, models))}"


def _grpc_frontend(layout: Layout, environment: str, models: Sequence[str]) -> Iterator[str]:
    yield from _frontend(layout, f"{environment}:grpc", layout.environments[environment][1], " proto h2")
    # HAProxy refuses to put a content type on its own answers without a body, and gRPC wants one on all.
    yield "  http-after-response set-header Content-Type application/grpc if { res.hdr(grpc-status) -m found }"
    yield f"  acl infer path {_GRPC}ModelInfer"
    yield f"  acl look path {_GRPC}ModelReady {_GRPC}ModelMetadata {_GRPC}ModelConfig"
    yield f"  acl health path {_GRPC}ServerLive {_GRPC}ServerReady"
    refusal = "the router serves ModelInfer, ModelReady, ModelMetadata, ModelConfig, ServerLive and ServerReady"
    yield f"  http-request return {_status(12, refusal)} unless infer or look or health"
    yield "  http-request set-var(txn.infer) bool(true) if infer"
    yield from _asked(layout)
    yield f"  http-request set-var(txn.model) req.body,{_GRPC_NAME},hex,map_beg({layout.models_map})"
    # HAProxy cannot make a gRPC answer with a body, so the first model that is up gives it.
    for section in (Split(environment, model).section("grpc") for model in models):
        yield f"  use_backend {section} if health {{ nbsrv({section}) gt 0 }}"
    yield f"  use_backend {environment}:%[var(txn.model)]:grpc"
    yield f"  default_backend {environment}:unknown-grpc"
    yield f"backend {environment}:unknown-grpc"
    none_up = f"no release can answer in environment {environment}"
    yield f"  http-request return {_status(14, none_up)} if {{ path {_GRPC}ServerLive {_GRPC}ServerReady }}"
    missing = f"no model of that name in environment {environment}; a compressed message cannot be routed"
    yield f"  http-request return {_status(5, missing)}"


def _json(status: int, error: str) -> str:
    # Single quotes keep HAProxy from looking into the text, and no text here has one.
    return f"status {status} content-type application/json string '{json.dumps({'error': error})}'"


def _status(code: int, message: str) -> str:
    """gRPC's answer without a body: its status stands in the headers."""
    return f'status 200 hdr grpc-status {code} hdr grpc-message "{message}"'


def _no_model(environment: str, models: Sequence[str]) -> str:
    listed = ", ".join(models)
    if len(listed) > _LISTED:
        listed = listed[:_LISTED].rpartition(",")[0] + " and more"
    return f"no model of that name in environment {environment}; it has {listed or 'none yet'}"


def _probe(split: Split) -> Iterator[str]:
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
    host, port = layout.lease
    yield f"  http-check connect addr {host} port {port}"
    yield from _get(f"/lease/{split.environment}/{split.model}", f"{host}:{port}")


def _get(path: str, host: str) -> Iterator[str]:
    yield f"  http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {host} hdr Connection close"
    yield "  http-check expect status 200"


def _backend(layout: Layout, split: Split, kind: str) -> Iterator[str]:
    yield f"backend {split.section(kind)}"
    yield from _decide(split)
    yield from _answer(layout, kind)
    unavailable = f"no release of {split.model} can answer in environment {split.environment}"
    yield f"  http-error {_json(503, unavailable)}"
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
    host = f"[{where.ip}]" if ":" in where.ip else where.ip
    return f"{host}:{where.grpc_port if kind == 'grpc' else where.http_port}"

"""Renders the frontends: what callers may ask for, and to which backend it goes."""

from collections.abc import Iterator, Sequence

from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.splits import Split
from app.adapters.haproxy.words import RING, bracketed, json_reply

_MODEL_PATH = "^/v2/models/[A-Za-z0-9._-]+(/versions/[0-9]+)?"
_GRPC = "/inference.GRPCInferenceService/"
# A gRPC message starts with 5 bytes of header; then come tag, length (2 bytes at most) and name.
_GRPC_NAME = "bytes(5,203)"
# An answer of HAProxy's own must fit into one buffer.
_LISTED = 8_000


def _frontend(layout: Layout, name: str, port: int, protocol: str) -> Iterator[str]:
    yield f"frontend {name}"
    yield f"  bind {bracketed(layout.bind)}:{port}{protocol}"
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
    too_large = json_reply(413, f"the request body is larger than {layout.max_body} bytes")
    yield f"  http-request return {too_large} if {{ req.body_size gt {layout.max_body} }}"


def http_frontend(layout: Layout, environment: str, models: Sequence[str]) -> Iterator[str]:
    yield from _frontend(layout, f"{environment}:http", layout.environments[environment][0], "")
    yield "  http-request return status 200 if { method GET HEAD } { path /v2/health/live /v2/health/ready }"
    yield f"  acl infer path_reg {_MODEL_PATH}/infer$"
    yield f"  acl look path_reg {_MODEL_PATH}(/ready|/config)?$"
    yield "  http-request set-var(txn.infer) bool(true) if infer METH_POST"
    # An allow-list: what Triton offers besides (repository control, shared memory, tracing, logging) stays inside.
    refusal = json_reply(403, "the router serves infer, ready, config and metadata of models, and /v2/health")
    yield f"  http-request return {refusal} unless {{ var(txn.infer) -m found }} or look {{ method GET HEAD }}"
    # What follows an upgrade would be tunnelled past these rules.
    yield "  http-request del-header Upgrade"
    yield from _asked(layout)
    # The length of a chunked body is only known at its end; above one buffer it could not be limited.
    unknown_length = "{ req.fhdr(Transfer-Encoding) -m found } { req.body_len ge 32768 }"
    yield f"  http-request return {json_reply(411, 'a large body needs a Content-Length')} if {unknown_length}"
    yield "  http-request set-var(txn.model) path,field(4,/)"
    yield f"  use_backend {environment}:%[var(txn.model)]:http"
    yield f"  default_backend {environment}:unknown-http"
    yield f"backend {environment}:unknown-http"
    yield f"  http-request return {json_reply(404, _no_model(environment, models))}"


def grpc_frontend(layout: Layout, environment: str, models: Sequence[str]) -> Iterator[str]:
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
    yield f"  use_backend {environment}:%[var(txn.model)]:grpc unless health"
    # HAProxy cannot make a gRPC answer with a body, so the first model that is up gives it.
    for section in (Split(environment, model).section("grpc") for model in models):
        yield f"  use_backend {section} if {{ nbsrv({section}) gt 0 }}"
    yield f"  default_backend {environment}:unknown-grpc"
    yield f"backend {environment}:unknown-grpc"
    none_up = f"no release can answer in environment {environment}"
    yield f"  http-request return {_status(14, none_up)} if {{ path {_GRPC}ServerLive {_GRPC}ServerReady }}"
    missing = f"no model of that name in environment {environment}; a compressed message cannot be routed"
    yield f"  http-request return {_status(5, missing)}"


def _status(code: int, message: str) -> str:
    """gRPC's answer without a body: its status stands in the headers."""
    return f'status 200 hdr grpc-status {code} hdr grpc-message "{message}"'


def _no_model(environment: str, models: Sequence[str]) -> str:
    listed = ", ".join(models)
    if len(listed) > _LISTED:
        listed = listed[:_LISTED].rpartition(",")[0] + " and more"
    return f"no model of that name in environment {environment}; it has {listed or 'none yet'}"

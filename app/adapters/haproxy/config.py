"""Renders HAProxy's configuration and the files beside it. Pure: the same layout and splits give the same text."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from app.adapters.haproxy.backends import backend, probe
from app.adapters.haproxy.frontends import grpc_frontend, http_frontend
from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.splits import Split
from app.adapters.haproxy.words import CANARY, RING

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
        yield from http_frontend(layout, environment, models)
        yield from grpc_frontend(layout, environment, models)
    for split in sorted(splits, key=lambda split: split.key):
        yield from probe(split)
        yield from backend(layout, split, "http")
        yield from backend(layout, split, "grpc")

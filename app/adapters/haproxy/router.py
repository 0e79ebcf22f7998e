"""The traffic router: files, reloads and the running HAProxy kept in step, by one caller at a time."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from app import failpoints
from app.adapters.haproxy import samples
from app.adapters.haproxy.admin import Admin
from app.adapters.haproxy.config import files, structure
from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.live import Live
from app.adapters.haproxy.splits import Split, dump, load, load_fences, merged, split_of
from app.adapters.haproxy.words import CANARY, PLACES, RING
from app.domain.canary import Sample
from app.domain.errors import Fault, Transient
from app.domain.fencing import refuse_stale
from app.ports import Route, RouteStatus

_POLL = 0.05


class HAProxyRouter:
    """Fulfils TrafficRouter and MetricSource with one HAProxy in master-worker mode, 2.6 or later.

    Somebody else runs `command()`, after `write_config` was called once, and sees that it runs again when it ends. The
    router and HAProxy share `layout.folder`, under the same path. `binary` checks a configuration before a reload.
    Several processes may hold a router of the same folder: a lock lets them change it in turn.
    """

    def __init__(self, layout: Layout, binary: str = "haproxy", patience: float = 10.0) -> None:
        self._layout, self._binary, self._patience = layout, binary, patience
        self._admin = Admin(layout.master_socket, layout.admin_socket)

    def command(self) -> list[str]:
        """Runs HAProxy in the foreground; it ends by SIGTERM, with SIGUSR1 once its last request is answered."""
        return [self._binary, "-W", "-S", f"{self._layout.master_socket},mode,600", "-f", str(self._layout.config)]

    def address(self, environment: str) -> str:
        """The base URL of the environment for V2 over HTTP. Raises Fault for one that has no ports."""
        return self._layout.address(environment)

    def grpc_address(self, environment: str) -> str:
        """`host:port` of the environment for V2 over gRPC (cleartext). Raises Fault for one that has no ports."""
        return self._layout.address(environment, grpc=True)

    def write_config(self, routes: list[Route]) -> None:
        """Write what HAProxy starts with: exactly these routes, whatever was recorded. Needs no running HAProxy.

        Raises Rejected, Fault or Transient for a route that cannot be written, see `split_of`.
        """
        with self._alone():
            self._write([split_of(route, self._layout.environments) for route in routes])

    def apply(self, routes: list[Route], change: Route, fence: int) -> None:
        """Follow `change`, and those of `routes` that the router never heard of.

        Only `change` alters what the router has: other routes in the list may be older than what another worker has
        just applied. For the same reason a route that is not listed stays; `write_config` is how one goes away.

        Raises:
            Transient: HAProxy is away, a new release does not become healthy or an old one does not finish. What was
                served before is still served; the same call may be repeated.
            Fault: HAProxy refuses the configuration, with its own words; the old one stays.
            Rejected: the model's name cannot be routed.
            LostLease: somebody with a higher token has changed this route before.
        """
        wanted = split_of(change, self._layout.environments)
        with self._alone():
            self._hold(wanted, fence)
            recorded = self._recorded()
            unknown = {split.key for split in recorded}
            others = [
                split_of(route, self._layout.environments)
                for route in routes
                if (route.environment, route.model) not in {*unknown, wanted.key}
            ]
            before = next((split for split in recorded if split.key == wanted.key), wanted.emptied())
            self._ensure_structure(merged(recorded, others, before))
            Live(self._admin, wanted, self._layout.releases_map, self._patience).follow()
            self._write(merged(recorded, others, wanted))

    def status(self, model: str, environment: str) -> RouteStatus:
        """Share in percent and health by role as HAProxy has them now; a role without a server is missing.

        A canary that is down still has its share here and gets nothing: `up` says so.
        """
        split = Split(environment, model)
        servers = self._admin.servers()
        canary = servers.get((split.section("http"), CANARY))
        weights, up = {}, {}
        if canary and not canary.maintenance:
            weights[CANARY], up[CANARY] = canary.weight, canary.up
        places = [servers[key] for place in PLACES if (key := (split.section("http"), place)) in servers]
        serving = [state for state in places if state.weight and not state.maintenance]
        if serving:
            weights["stable"], up["stable"] = 100 - weights.get(CANARY, 0), any(state.up for state in serving)
        return RouteStatus(weights, up)

    def sample(self, model: str, environment: str, role: samples.Role, since: float) -> Sample:
        """What clients of one role got since a unix time, while the route had a canary with a share.

        HAProxy keeps the newest lines only (about 200,000 requests in 16 MiB), so after a long and busy time the sample
        covers the newest part of it. What counts as failed: see `samples.sample`.
        """
        kept = self._layout.kept_events
        lines = (kept.read_bytes() if kept.exists() else b"") + self._admin.events(RING)
        return samples.sample(lines, environment, model, role, since)

    def _ensure_structure(self, splits: Sequence[Split]) -> None:
        """Reload if the running process lacks a section that these splits need, and wait until the new one serves."""
        wanted = structure(self._layout, splits)
        if self._admin.structure() == wanted:
            return
        self._check(splits)
        servers = self._admin.servers()
        awake = {s.key for s in splits if (c := servers.get((s.section("http"), CANARY))) and c.up}
        self._write(splits, awake)
        self._keep(self._layout.kept_events, self._admin.events(RING)[-self._layout.ring :])
        self._admin.reload()
        end = time.monotonic() + self._patience
        while not self._took_over(wanted):
            if time.monotonic() > end:
                raise Fault("HAProxy did not take over its new configuration.", "See HAProxy's own log.")
            time.sleep(_POLL)

    def _took_over(self, wanted: str) -> bool:
        try:
            return self._admin.structure() == wanted
        except Transient:
            return False  # the master replaces itself as well and is away for a moment

    def _check(self, splits: Sequence[Split]) -> None:
        """Have HAProxy read the configuration before it has to live by it. Raises Fault with its words."""
        # The name is short because a socket's path must be.
        trial = replace(self._layout, folder=self._layout.folder / "t")
        trial.folder.mkdir(exist_ok=True, mode=0o700)
        try:
            self._write_files(files(trial, splits))
            command = [self._binary, "-c", "-f", str(trial.config)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Fault(f"HAProxy's program cannot be run: {error}.", "Install haproxy 2.6 or later.") from error
        finally:
            shutil.rmtree(trial.folder)
        if done.returncode:
            words = re.findall(r"\[ALERT\][^:]*: (.*)", done.stderr)
            raise Fault(f"HAProxy refuses its configuration: {' '.join(words)}", "The one before it stays in force.")

    def _recorded(self) -> list[Split]:
        try:
            return load(self._layout.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise Fault(
                f"{self._layout.record.name} is damaged: {error!r}.", "Restart Headgate: it is written anew."
            ) from error

    def _hold(self, split: Split, fence: int) -> None:
        """Compare the caller's token with the highest one seen for the route, and keep it before anything is changed:
        who dies in the middle has shut out all before it. In a file of its own, which `write_config` leaves alone.
        Call it inside the lock."""
        try:
            seen = load_fences(self._layout.fences.read_text(encoding="utf-8"))
        except FileNotFoundError:
            seen = {}
        except (ValueError, TypeError, AttributeError) as error:
            raise Fault(f"{self._layout.fences} is damaged: {error!r}.", "Remove it while no worker runs.") from error
        route = split.section("route")
        refuse_stale(f"The router's {route}", fence, seen.get(route, 0))
        if seen.get(route) != fence:
            self._keep(self._layout.fences, json.dumps({**seen, route: fence}, indent=1).encode())

    def _write(self, splits: Sequence[Split], awake: Collection[tuple[str, str]] = ()) -> None:
        self._write_files({**files(self._layout, splits, awake), self._layout.record: dump(splits)})

    def _write_files(self, texts: Mapping[Path, str]) -> None:
        for path, text in texts.items():
            self._keep(path, text.encode())

    @staticmethod
    def _keep(path: Path, content: bytes) -> None:
        """Replace a file in one step; only its owner may read it, for it tells who may ask for which release."""
        with failpoints.around("haproxy.file"):
            handle, name = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(handle)
            Path(name).replace(path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder's lock. Raises Transient where another process holds it for too long."""
        self._layout.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._layout.lock.open("w") as lock:
            end = time.monotonic() + 3 * self._patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise Transient("Another process is changing the router.", "Try again.") from None
                    time.sleep(_POLL)
            yield

"""TritonDocker: one container for each release, which lives on when the worker that started it dies."""

import http.client
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest

from app import failpoints
from app.adapters.docker_engine.fences import CONFLICT, Fences, Names
from app.docker_daemon import Daemon, translated
from app.domain.errors import Fault, LostLease
from app.domain.fencing import refuse_stale
from app.ports import Endpoint, ReleaseSpec

_HTTP, _GRPC = "8000/tcp", "8001/tcp"
_POLL = 0.1
_ATTEMPTS = 5
_STOP_SECONDS = 15
_LINES, _TEXT = 60, 2000
_NO_GPU = "Install the NVIDIA Container Toolkit on the machine of the Docker daemon, or set target.instance to cpu."


class _Again(Exception):
    """Somebody was quicker: took the port, or made or removed the container in this moment."""


def free_ports(host: str) -> tuple[int, int]:
    """Two ports that nobody listens on now: for HTTP and gRPC."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((host, 0))
        second.bind((host, 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])


class TritonDocker:
    """A ModelServer that runs one container of the release's image.

    Ports are published on `host`. Where Headgate itself runs in a container, give the Docker `network` that both and
    the router share: nothing is published then and the endpoint is the container's short id. `owner` tells the
    releases of several Headgates on one daemon apart.
    """

    def __init__(
        self,
        docker_host: str,
        owner: str = "headgate",
        host: str = "127.0.0.1",
        network: str | None = None,
        memory_mib: int = 4096,
        processes: int = 2048,
        ready_timeout: timedelta = timedelta(minutes=2),
        choose_ports: Callable[[str], tuple[int, int]] = free_ports,
    ) -> None:
        self._daemon = Daemon(docker_host, timeout=120)
        self._fences = Fences(self._daemon)
        self._owner, self._host, self._network = owner, host, network
        self._memory_mib, self._processes = memory_mib, processes
        self._ready_timeout, self._choose_ports = ready_timeout.total_seconds(), choose_ports

    def start(self, spec: ReleaseSpec, fence: int) -> Endpoint:
        """Start the release, or adopt the container of that name, and return once it answers.

        Raises:
            Fault: no image, or Triton did not get ready: with the end of its log.
            Transient: the daemon does not answer.
            LostLease: somebody with a higher token has started or stopped it.
        """
        if spec.image is None:
            raise Fault(f"{spec.name} has no image to run.", "Build one first.")
        names = Names(self._owner, spec.name)
        with translated(f"start {spec.name}"):
            for _ in range(_ATTEMPTS):
                try:
                    self._fences.hold(names, fence)
                    container = self._running(spec, spec.image, fence)
                    return self._once_ready(spec, container)
                except _Again:
                    time.sleep(_POLL)
        raise Fault(f"{spec.name} could not be started in {_ATTEMPTS} tries.", "See what else works on its container.")

    def find(self, name: str) -> Endpoint | None:
        """The endpoint of a running release, or None."""
        with translated(f"find {name}"):
            held, _ = self._containers(Names(self._owner, name))
            return self._endpoint(held[0]) if held and held[0].status == "running" else None

    def stop(self, name: str, fence: int | None) -> None:
        """Stop the release: requests in flight are answered first. Its container is removed.

        Raises LostLease where somebody with a higher token has started or stopped it; without a token, never.
        """
        names = Names(self._owner, name)
        with translated(f"stop {name}"):
            for _ in range(_ATTEMPTS):
                try:
                    if fence is not None:
                        self._fences.hold(names, fence)
                    held, going = self._containers(names)
                    if fence is not None:
                        self._refuse_later(names, held, fence)
                    self._remove(names, held, going)
                    return
                except _Again:
                    time.sleep(_POLL)
        raise Fault(f"{name} could not be stopped in {_ATTEMPTS} tries.", "See what else works on its container.")

    def names(self) -> list[str]:
        """All releases of this owner that run."""
        with translated("list releases"):
            labels = [f"headgate.owner={self._owner}", "headgate.release"]
            found = self._daemon.client().containers.list(filters={"label": labels, "status": "running"})
            return sorted({each.labels["headgate.release"] for each in found})

    def close(self) -> None:
        """Close the connections to the daemon."""
        self._daemon.close()

    def _running(self, spec: ReleaseSpec, image: str, fence: int) -> Container:
        names = Names(self._owner, spec.name)
        container = self._adopted(names, fence)
        if container and container.status not in ("running", "created"):
            # It ended by itself: a server that has died tells nothing more, so a fresh one takes its place.
            self._remove(names, [container], [])
            container = None
        if container is None:
            container = self._create(spec, image, fence)
        elif container.labels.get("headgate.image") != image:
            raise Fault(f"{spec.name} already serves {container.labels.get('headgate.image')}.", "Stop it first.")
        try:
            self._tell(lambda api: api.start(container.name))
        except APIError as error:
            self._remove(names, [container], [])
            said = str(error.explanation)
            if "already" in said:
                raise _Again from error
            if "could not select device driver" in said:
                raise Fault(f"This Docker has no GPU for {spec.name}.", _NO_GPU) from error
            raise
        return container

    def _adopted(self, names: Names, fence: int) -> Container | None:
        """The release's container under the name that this holder has for it; what else there is of it goes."""
        held, going = self._containers(names)
        self._refuse_later(names, held, fence)
        if held and held[0].name != names.held(fence):
            # The daemon does this once: to whoever held it before, the container of that name is gone from now on.
            self._rename(held[0], names.held(fence))
            self._reload(held[0], names.held(fence))
        self._remove(names, held[1:], going)
        return held[0] if held else None

    def _refuse_later(self, names: Names, held: Sequence[Container], fence: int) -> None:
        """Raises LostLease where a later holder has a container: this one may touch only what has its name or an older
        one."""
        refuse_stale(names.release, fence, max((names.fence_of(each) or 0 for each in held), default=0))

    def _containers(self, names: Names) -> tuple[list[Container], list[Container]]:
        """The release's containers, that of the highest token first; and those that are being removed."""
        found = self._daemon.client().containers.list(all=True, filters=names.filters, ignore_removed=True)
        fences = {each.id: names.fence_of(each) for each in found}
        held = [each for each in found if fences[each.id] is not None]
        held.sort(key=lambda each: fences[each.id] or 0, reverse=True)
        return held, [each for each in found if fences[each.id] is None]

    def _rename(self, container: Container, later: str) -> None:
        self._tell(lambda api: api.rename(container.name, later))

    def _tell(self, order: Callable[[Any], object]) -> None:
        """Give an order about a container by its name, which holds a token. Raises _Again where it has another now."""
        try:
            with failpoints.around("docker.tell"):
                order(self._daemon.client().api)
        except NotFound as error:
            raise _Again from error
        except APIError as error:
            if error.status_code == CONFLICT:
                raise _Again from error
            raise

    def _create(self, spec: ReleaseSpec, image: str, fence: int) -> Container:
        client = self._daemon.client()
        names = Names(self._owner, spec.name)
        options = self._options(spec, image, names.held(fence))
        try:
            try:
                with failpoints.around("docker.create"):
                    container = client.containers.create(image, **options)
            except ImageNotFound:
                client.images.pull(image)
                container = client.containers.create(image, **options)
        except APIError as error:
            if error.status_code == CONFLICT:
                raise _Again from error
            raise
        try:
            # A later holder that registered before this container was there has not seen it, and is seen here.
            self._fences.check(names, fence)
        except LostLease:
            self._remove(names, [container], [])
            raise
        return container

    def _options(self, spec: ReleaseSpec, image: str, name: str) -> dict[str, Any]:
        """How a release is locked in: nothing to write to, no rights to gain, no more memory or processes than told."""
        labels = {**Names(self._owner, spec.name).labels, "headgate.image": image}
        options: dict[str, Any] = {
            "name": name,
            "labels": labels,
            "read_only": True,
            "tmpfs": {"/tmp": "size=64m,mode=1777"},  # noqa: S108  # inside the container
            "shm_size": "256m",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": f"{self._memory_mib}m",
            "memswap_limit": f"{self._memory_mib}m",
            "pids_limit": self._processes,
        }
        if spec.instance == "gpu":
            options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
        if self._network:
            return options | {"network": self._network}
        http_port, grpc_port = self._choose_ports(self._host)
        # Chosen here and not by Docker, which would choose others when the container is started again.
        return options | {"ports": {_HTTP: (self._host, http_port), _GRPC: (self._host, grpc_port)}}

    def _once_ready(self, spec: ReleaseSpec, container: Container) -> Endpoint:
        mine = container.name
        self._reload(container, mine)
        endpoint = self._endpoint(container)
        deadline = time.monotonic() + self._ready_timeout
        while container.status == "running" and time.monotonic() < deadline:
            if _is_ready(endpoint, spec.model):
                # Only what has been ready once is worth starting again when it or the machine falls over.
                self._tell(lambda api: api.update_container(container.name, restart_policy={"Name": "always"}))
                return endpoint
            time.sleep(_POLL)
            self._reload(container, mine)
        said = container.logs(tail=_LINES).decode(errors="replace")
        self._remove(Names(self._owner, spec.name), [container], [])
        raise Fault(f"Triton did not get {spec.name} ready: {_plain(said)}", "Mend what the last lines name.")

    def _reload(self, container: Container, mine: str | None) -> None:
        """Raises _Again where the container has another name by now: from here on its name is never a later one."""
        self._tell(lambda _: container.reload())
        if container.name != mine:
            raise _Again

    def _endpoint(self, container: Container) -> Endpoint:
        if self._network:
            # Docker answers to it as to a name, and it stays the same when the next holder renames the container.
            return Endpoint(str(container.short_id), int(_HTTP.partition("/")[0]), int(_GRPC.partition("/")[0]))
        bindings = container.attrs["HostConfig"]["PortBindings"]
        http_port, grpc_port = (int(bindings[port][0]["HostPort"]) for port in (_HTTP, _GRPC))
        return Endpoint(self._host, http_port, grpc_port)

    def _remove(self, names: Names, held: Sequence[Container], going: Sequence[Container]) -> None:
        """Take containers from their holders by their names, at once, then end them at leisure."""
        for container in held:
            self._rename(container, names.gone(container))
        for container in (*held, *going):
            _end(container)


def _end(container: Container) -> None:
    try:
        container.stop(timeout=_STOP_SECONDS)
        container.remove(force=True)
    except NotFound:
        return
    except APIError as error:
        # Somebody else is removing it at this moment, which is as good.
        if error.status_code != CONFLICT:
            raise


def _is_ready(endpoint: Endpoint, model: str) -> bool:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port, timeout=2)
    try:
        connection.request("GET", f"/v2/models/{model}/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _plain(said: str) -> str:
    """Triton's own words without its tables."""
    return "\n".join(line for line in said.splitlines() if line and line[0] not in "+|")[-_TEXT:]

"""TritonDocker: one container for each release, which lives on when the worker that started it dies."""

import hashlib
import http.client
import re
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest

from app.adapters.docker_engine.daemon import Daemon, translated
from app.domain.errors import Fault
from app.ports import Endpoint, ReleaseSpec

_HTTP, _GRPC = "8000/tcp", "8001/tcp"
_POLL = 0.1
_ATTEMPTS = 5
_CONFLICT = 409
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
    the router share: nothing is published then and the endpoint is the container's name. `owner` tells the releases of
    several Headgates on one daemon apart.
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
        self._owner, self._host, self._network = owner, host, network
        self._memory_mib, self._processes = memory_mib, processes
        self._ready_timeout, self._choose_ports = ready_timeout.total_seconds(), choose_ports

    def start(self, spec: ReleaseSpec) -> Endpoint:
        """Start the release, or adopt the container of that name, and return once it answers.

        Raises:
            Fault: no image, or Triton did not get ready: with the end of its log.
            Transient: the daemon does not answer.
        """
        if spec.image is None:
            raise Fault(f"{spec.name} has no image to run.", "Build one first.")
        with translated(f"start {spec.name}"):
            for _ in range(_ATTEMPTS):
                try:
                    container = self._running(spec, spec.image)
                    return self._once_ready(spec, container)
                except _Again:
                    time.sleep(_POLL)
        raise Fault(f"{spec.name} could not be started in {_ATTEMPTS} tries.", "See what else works on its container.")

    def find(self, name: str) -> Endpoint | None:
        """The endpoint of a running release, or None."""
        with translated(f"find {name}"):
            container = self._get(name)
            return self._endpoint(container) if container and container.status == "running" else None

    def stop(self, name: str) -> None:
        """Stop the release: requests in flight are answered first. Its container is removed."""
        with translated(f"stop {name}"):
            container = self._get(name)
            if container:
                self._remove(container)

    def names(self) -> list[str]:
        """All releases of this owner that run."""
        with translated("list releases"):
            labels = [f"headgate.owner={self._owner}", "headgate.release"]
            found = self._daemon.client().containers.list(filters={"label": labels, "status": "running"})
            return sorted(each.labels["headgate.release"] for each in found)

    def close(self) -> None:
        """Close the connections to the daemon."""
        self._daemon.close()

    def _running(self, spec: ReleaseSpec, image: str) -> Container:
        container = self._get(spec.name)
        if container and container.status not in ("running", "created"):
            # It ended by itself: a server that has died tells nothing more, so a fresh one takes its place.
            self._remove(container)
            container = None
        if container is None:
            container = self._create(spec, image)
        elif container.labels.get("headgate.image") != image:
            raise Fault(f"{spec.name} already serves {container.labels.get('headgate.image')}.", "Stop it first.")
        try:
            container.start()
        except NotFound as error:
            raise _Again from error
        except APIError as error:
            self._remove(container)
            said = str(error.explanation)
            if "already" in said:
                raise _Again from error
            if "could not select device driver" in said:
                raise Fault(f"This Docker has no GPU for {spec.name}.", _NO_GPU) from error
            raise
        return container

    def _create(self, spec: ReleaseSpec, image: str) -> Container:
        client = self._daemon.client()
        options = self._options(spec, image)
        try:
            try:
                return client.containers.create(image, **options)
            except ImageNotFound:
                client.images.pull(image)
                return client.containers.create(image, **options)
        except APIError as error:
            if error.status_code == _CONFLICT:
                raise _Again from error
            raise

    def _options(self, spec: ReleaseSpec, image: str) -> dict[str, Any]:
        """How a release is locked in: nothing to write to, no rights to gain, no more memory or processes than told."""
        labels = {"headgate.release": spec.name, "headgate.owner": self._owner, "headgate.image": image}
        options: dict[str, Any] = {
            "name": self._container_name(spec.name),
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
        endpoint = self._endpoint_after_reload(container)
        deadline = time.monotonic() + self._ready_timeout
        while container.status == "running" and time.monotonic() < deadline:
            if _is_ready(endpoint, spec.model):
                # Only what has been ready once is worth starting again when it or the machine falls over.
                container.update(restart_policy={"Name": "always"})
                return endpoint
            time.sleep(_POLL)
            endpoint = self._endpoint_after_reload(container)
        said = container.logs(tail=_LINES).decode(errors="replace")
        self._remove(container)
        raise Fault(f"Triton did not get {spec.name} ready: {_plain(said)}", "Mend what the last lines name.")

    def _endpoint_after_reload(self, container: Container) -> Endpoint:
        try:
            container.reload()
        except NotFound as error:
            raise _Again from error
        return self._endpoint(container)

    def _endpoint(self, container: Container) -> Endpoint:
        if self._network:
            return Endpoint(str(container.name), int(_HTTP.partition("/")[0]), int(_GRPC.partition("/")[0]))
        bindings = container.attrs["HostConfig"]["PortBindings"]
        http_port, grpc_port = (int(bindings[port][0]["HostPort"]) for port in (_HTTP, _GRPC))
        return Endpoint(self._host, http_port, grpc_port)

    def _get(self, name: str) -> Container | None:
        try:
            return self._daemon.client().containers.get(self._container_name(name))
        except NotFound:
            return None

    def _remove(self, container: Container) -> None:
        try:
            container.stop(timeout=_STOP_SECONDS)
            container.remove(force=True)
        except NotFound:
            return
        except APIError as error:
            # Somebody else is removing it at this moment, which is as good.
            if error.status_code != _CONFLICT:
                raise

    def _container_name(self, name: str) -> str:
        """Docker takes fewer characters than we do; the end keeps names apart that would otherwise be the same."""
        return f"{self._owner}-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


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

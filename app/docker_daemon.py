"""One way to reach the Docker daemon, and its errors in our words."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException

from app.domain.errors import Fault, Transient

_REMEDY = "See that the Docker daemon runs and that Headgate may use its socket (HEADGATE_DOCKER_HOST)."


class Daemon:
    """A Docker daemon that is first spoken to when it is needed. `host` is `unix://...` or `tcp://...`."""

    def __init__(self, host: str, timeout: int) -> None:
        self._host, self._timeout = host, timeout
        self._client: docker.DockerClient | None = None

    def client(self) -> docker.DockerClient:
        """The client, which agrees with the daemon on a version of the API. Raises Transient where none answers."""
        if self._client is None:
            with translated(f"reach Docker at {self._host}"):
                _knock(self._host)
                self._client = docker.DockerClient(base_url=self._host, version="auto", timeout=self._timeout)
        return self._client

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()


def _knock(host: str) -> None:
    """Raise OSError where nobody listens: the SDK would leave its own socket open behind such an error."""
    kind, _, path = host.partition("://")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(5)
            door.connect(path)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what the SDK raises into ours: a daemon that is away is Transient, one that refuses is a Fault."""
    try:
        yield
    except APIError as error:
        raise Fault(f"Docker refused to {doing}: {error.explanation or error}.", "See the daemon's log.") from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise Transient(f"Docker did not answer to {doing}: {error}.", _REMEDY) from error

"""DockerEngine: builds images once for each tag and labels, and pushes them where a registry is set."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound
from docker.models.images import Image

from app.docker_daemon import Daemon, translated
from app.domain.errors import Fault

_LINES = 20


class DockerEngine:
    """An ImageBuilder. Without a `registry` ("host:port/path") images stay on this daemon.

    `build_network` is the network of build steps (`host` where the bridge leads nowhere), `timeout` how long one step
    may be silent.
    """

    def __init__(
        self,
        docker_host: str,
        registry: str | None = None,
        build_network: str | None = None,
        timeout: timedelta = timedelta(minutes=10),
    ) -> None:
        self._daemon = Daemon(docker_host, int(timeout.total_seconds()))
        self._registry, self._build_network = registry, build_network

    def build(self, context: Path, tag: str, labels: Mapping[str, str]) -> str:
        """Build the folder's Dockerfile, or adopt an image of that tag and labels, and return the image's id.

        With a registry the image is pushed and the answer is `<registry>/<name>@sha256:...`: what any machine can pull,
        and what nobody can change behind the name.

        Raises:
            Fault: the build or the push fails, with the last lines of its output.
            Transient: the daemon does not answer.
        """
        name = f"{self._registry}/{tag}" if self._registry else tag
        with translated(f"build {name}"):
            image = self._existing(name, labels) or self._build(context, name, labels)
            return self._push(name) if self._registry else str(image.id)

    def version(self) -> str:
        """The daemon's own name and version; raises Transient where none answers."""
        with translated("tell its version"):
            said = self._daemon.client().version()
            return f"{said.get('Platform', {}).get('Name') or 'Docker Engine'} {said['Version']}"

    def close(self) -> None:
        """Close the connections to the daemon."""
        self._daemon.close()

    def _existing(self, name: str, labels: Mapping[str, str]) -> Image | None:
        try:
            image = self._daemon.client().images.get(name)
        except ImageNotFound:
            return None
        return image if labels.items() <= image.labels.items() else None

    def _build(self, context: Path, name: str, labels: Mapping[str, str]) -> Image:
        client = self._daemon.client()
        output = client.api.build(
            path=str(context),
            tag=name,
            labels=dict(labels),
            network_mode=self._build_network,
            rm=True,
            forcerm=True,
            decode=True,
        )
        _read(f"The image {name} could not be built", output)
        return client.images.get(name)

    def _push(self, name: str) -> str:
        repository, _, tag = name.rpartition(":")
        output = self._daemon.client().api.push(repository, tag, stream=True, decode=True)
        messages = _read(f"The image {name} could not be pushed", output)
        digest = next((line["aux"]["Digest"] for line in messages if "Digest" in line.get("aux", {})), None)
        if not digest:
            raise Fault(f"The registry told no digest of {name}.", "See whether it speaks the registry API version 2.")
        return f"{repository}@{digest}"


def _read(failure: str, output: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The daemon's messages, read to their end, for a build ends with its reader. An error among them is a Fault."""
    messages = list(output)
    errors = [str(line["error"]) for line in messages if "error" in line]
    if errors:
        lines = "".join(str(line.get("stream", "")) for line in messages).splitlines()
        said = [line for line in lines if line.strip()][-_LINES:]
        reason = "\n".join([f"{failure}:", *said, *errors])
        raise Fault(reason, "Mend what the last lines name; the build is tried again.")
    return messages

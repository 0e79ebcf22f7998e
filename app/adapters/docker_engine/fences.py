"""The fencing tokens of releases, kept by the Docker daemon: hosts that share no lock share it.

Each call registers its token as an empty volume, then reads which one is the highest. Whoever registered later was seen
by nobody, whoever registered before is seen by all that follow; so of two callers at least the stale one finds out. A
release's container carries the token of its holder in its name, and a holder touches it by that name only: a later one
has renamed it, so that a stale word finds nothing.
"""

import hashlib
import re
from dataclasses import dataclass

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.volumes import Volume

from app.docker_daemon import Daemon
from app.domain.fencing import refuse_stale

CONFLICT = 409


@dataclass(frozen=True)
class Names:
    """How the containers and volumes of one release are called."""

    owner: str
    release: str

    @property
    def base(self) -> str:
        """Docker takes fewer characters than we do; the end keeps names apart that would otherwise be the same."""
        readable = re.sub(r"[^A-Za-z0-9_.-]", "-", self.release)
        return f"{self.owner}-{readable}-{hashlib.sha256(self.release.encode()).hexdigest()[:8]}"

    @property
    def labels(self) -> dict[str, str]:
        return {"headgate.release": self.release, "headgate.owner": self.owner}

    @property
    def filters(self) -> dict[str, str | list[str] | bool]:
        return {"label": [f"{key}={value}" for key, value in self.labels.items()]}

    def held(self, fence: int) -> str:
        """The container of the holder with that token."""
        return f"{self.base}.{fence}"

    def gone(self, container: Container) -> str:
        """A container that is being removed and that nobody adopts any more."""
        return f"{self.base}.gone-{container.short_id}"

    def fence_of(self, container: Container) -> int | None:
        """The token in a container's name; 0 for one from before there were tokens, None for one that is going."""
        rest = str(container.name).removeprefix(self.base)
        return None if rest.startswith(".gone-") else int(rest.removeprefix(".") or 0)


class Fences:
    """The tokens that one daemon has seen."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def hold(self, names: Names, fence: int) -> None:
        """Register a token, and forget lower ones.

        Raises:
            LostLease: a higher one is registered.
        """
        self.check(names, fence)
        labels = {**names.labels, "headgate.fence": str(fence)}
        self._daemon.client().volumes.create(f"{names.base}.fence-{fence}", labels=labels)
        self.check(names, fence)
        for volume in self._registered(names):
            if _token(volume) < fence:
                _forget(volume)

    def check(self, names: Names, fence: int) -> None:
        """Raises LostLease where a higher token is registered."""
        refuse_stale(names.release, fence, max(map(_token, self._registered(names)), default=0))

    def _registered(self, names: Names) -> list[Volume]:
        return list(self._daemon.client().volumes.list(filters=names.filters))


def _token(volume: Volume) -> int:
    return int(volume.attrs["Labels"]["headgate.fence"])


def _forget(volume: Volume) -> None:
    try:
        volume.remove()
    except NotFound:
        return
    except APIError as error:
        # Somebody else is removing it at this moment, which is as good.
        if error.status_code != CONFLICT:
            raise

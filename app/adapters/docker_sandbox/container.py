"""One container for one job: how it is locked in, filled, started and thrown away."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount, Ulimit

from app import failpoints
from app.adapters.docker_sandbox.cargo import FILTER, MAX_ENTRIES, PACKAGES
from app.adapters.docker_sandbox.streams import Streams
from app.docker_daemon import Daemon
from app.ports import SandboxJob
from app.sandbox.program import ENVIRONMENT, HOME, NOBODY, THREADS, TMP, TMP_BYTES, Limits, python_words

PROCESSES = 256
GRACE_SECONDS = 90.0
"""How long a run may take beyond its job's time: for the container's start, and for what it leaves."""
_PYTHON = f"{HOME}/python"
_SITES = (f"{HOME}/site0",)
_WARDEN = f"import sys; sys.path += ['{HOME}']; from sandbox.warden import main; main(sys.argv[1])"
_OPEN_FILES = 256
_SLACK_MIB = 256
_PERIOD = 100_000
_CONFLICT = 409


@dataclass(frozen=True)
class Cell:
    """What every container of a sandbox is made of: the image's id, whose it is, and the MiB of its output."""

    image: str
    owner: str
    output_mib: int

    @contextmanager
    def opened(
        self, daemon: Daemon, cargo: IO[bytes], job: SandboxJob, program: str, limits: Limits
    ) -> Iterator[Streams]:
        """The streams of a container that runs the program on the archive; when the block ends it is gone."""
        until = time.time() + job.timeout.total_seconds() + GRACE_SECONDS
        labels = {"headgate.owner": self.owner, "headgate.sandbox": program, "headgate.until": str(int(until))}
        name = f"{self.owner}-sandbox-{secrets.token_hex(8)}"
        # It never runs. Its volumes are written to through it, and the job's container has them read-only.
        hands = self._create_hands(daemon, f"{name}.in", labels, job)
        try:
            hands.put_archive("/", cargo)
            cell = self._create(daemon, name, labels, hands, self._order(job, program, limits), limits)
            try:
                with _attached(daemon, cell, job.timeout.total_seconds() + GRACE_SECONDS) as streams:
                    with failpoints.around("docker.sandbox_start"):
                        cell.start()
                    # From here on the volumes are the job's, and go with it whoever dies.
                    throw_away(hands)
                    yield streams
            finally:
                throw_away(cell)
        finally:
            throw_away(hands)

    def _create_hands(self, daemon: Daemon, name: str, labels: dict[str, str], job: SandboxJob) -> Container:
        places = ["/in", f"{HOME}/sandbox", *([PACKAGES] if job.environment else [])]
        volumes = [Mount(place, None, no_copy=True) for place in places]
        return daemon.client().containers.create(
            self.image, [_PYTHON], name=name, labels=labels, mounts=volumes, network_mode="none", use_config_proxy=False
        )

    def _create(
        self, daemon: Daemon, name: str, labels: dict[str, str], hands: Container, order: str, limits: Limits
    ) -> Container:
        options = self._options(hands, limits)
        words = [_PYTHON, "-I", "-S", "-B", "-c", _WARDEN, order]
        with failpoints.around("docker.sandbox_create"):
            return daemon.client().containers.create(
                self.image, entrypoint=words, command=[], name=name, labels=labels, **options
            )

    def _order(self, job: SandboxJob, program: str, limits: Limits) -> str:
        order = {
            "command": python_words(_PYTHON, program, limits, [PACKAGES] if job.environment else _SITES),
            "environment": ENVIRONMENT,
            "filter": FILTER,
            "seconds": job.timeout.total_seconds(),
            "cpu_seconds": limits.cpu_seconds,
            "output": "/out",
        }
        return json.dumps(order)

    def _options(self, hands: Container, limits: Limits) -> dict[str, Any]:
        """How a job is locked in. Docker's own system call filter is in force besides ours, for none is named here."""
        closed = "rw,noexec,nosuid,nodev"
        # What lies in /tmp and /out is memory, and counts.
        memory = f"{limits.memory_mib + self.output_mib + (TMP_BYTES >> 20) + _SLACK_MIB}m"
        return {
            "user": f"{NOBODY}:{NOBODY}",
            "network_mode": "none",
            # None at all: no /dev/shm either.
            "ipc_mode": "none",
            "hostname": "sandbox",
            "read_only": True,
            "volumes_from": [f"{hands.id}:ro"],
            "tmpfs": {
                TMP: f"{closed},size={TMP_BYTES},mode=1777",
                "/out": f"{closed},size={self.output_mib}m,nr_inodes={MAX_ENTRIES},mode=1777",
            },
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "pids_limit": PROCESSES,
            "mem_limit": memory,
            "memswap_limit": memory,
            # As a quota and not as a number of CPUs, of which a machine may have fewer.
            "cpu_period": _PERIOD,
            "cpu_quota": _PERIOD * THREADS,
            "ulimits": [
                _limit("fsize", limits.file_mib << 20),
                _limit("nofile", _OPEN_FILES),
                _limit("core", 0),
            ],
            # Its end is what the warden takes for our own.
            "stdin_open": True,
            "log_config": LogConfig(type="none"),
            "auto_remove": True,
            "init": False,
            "healthcheck": {"test": ["NONE"]},
            "use_config_proxy": False,
        }


@contextmanager
def _attached(daemon: Daemon, cell: Container, seconds: float) -> Iterator[Streams]:
    socket = daemon.client().api.attach_socket(
        cell.id,  # type: ignore[arg-type]  # a container that was just made has one
        params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1},
    )
    streams = Streams(socket, seconds)
    try:
        yield streams
    finally:
        streams.close()


def _limit(name: str, most: int) -> Ulimit:
    return Ulimit(name=name, soft=most, hard=most)


def throw_away(container: Container) -> None:
    """End the container and remove it with its volumes; one that is gone, or going, is fine."""
    try:
        with failpoints.around("docker.sandbox_remove"):
            container.remove(force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        # It removes itself at this moment, which is as good.
        if error.status_code != _CONFLICT:
            raise


def left_over(daemon: Daemon, owner: str, now: float) -> Sequence[Container]:
    """Containers whose time is over: of workers that were killed between two calls."""
    labels = [f"headgate.owner={owner}", "headgate.until"]
    found = daemon.client().containers.list(all=True, filters={"label": labels}, ignore_removed=True)
    return [each for each in found if float(each.labels["headgate.until"]) + GRACE_SECONDS < now]

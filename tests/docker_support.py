"""A real Docker Engine for tests, of their own: nothing is pulled, and the machine's own Docker stays as it is.

    with docker_engine(folder) as host:      # "unix://..."
        image = triton_cpu_base(host)        # the tag of the CPU base, made once and kept in .cache/
        image = sandbox_image(host)          # the same for the image of the container sandbox

It needs root, dockerd, iproute2 and debootstrap. HEADGATE_TEST_DOCKER_HOST names another daemon to use instead, and
HEADGATE_TEST_BASE_IMAGE an image with python3, its shared library and pip instead of a bootstrapped Debian.
"""

import fcntl
import hashlib
import importlib.metadata
import itertools
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import httpx
from docker.errors import ImageNotFound

from app.adapters.docker_engine import DockerEngine, TritonDocker
from app.domain.errors import Transient
from app.packaging import write_base_context
from app.sandbox_image import write_sandbox_context

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "docker"
_FILES = {"triton-cpu": "base", "sandbox": "sandbox"}
SUITE, PACKAGES = "bookworm", "python3,python3-pip,libpython3.11"


@contextmanager
def docker_engine(folder: Path) -> Iterator[str]:
    """Run a dockerd that keeps everything below `folder`, and yield its address. `folder` is emptied at the end.

    It has a bridge of its own and writes no packet filter: ports are published by its proxy, and builds that need the
    internet take the host's network.
    """
    given = os.environ.get("HEADGATE_TEST_DOCKER_HOST")
    if given:
        yield given
        return
    # The path of a socket may have about 100 characters, and folders of tests are longer than that.
    with tempfile.TemporaryDirectory(prefix="headgate-") as short, _bridge() as bridge:
        host = f"unix://{short}/docker.sock"
        (folder / "daemon.json").write_text("{}")
        command = [
            *("setpriv", "--pdeathsig", "TERM", "dockerd", f"--host={host}", f"--bridge={bridge}"),
            *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *(f"--data-root={folder}/data", f"--exec-root={short}/exec", f"--pidfile={short}/dockerd.pid"),
            f"--config-file={folder}/daemon.json",
        ]
        log = folder / "dockerd.log"
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as daemon:
            try:
                _wait(lambda: _answers(host), daemon, log)
                yield host
            finally:
                daemon.terminate()
                daemon.wait(60)
                for mount in Path(short, "exec", "netns").glob("*"):
                    subprocess.run(["umount", str(mount)], check=True)
                shutil.rmtree(folder / "data")


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Run an image registry that keeps everything below `folder`, and yield its address, `127.0.0.1:port`."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config, log = folder / "registry.yml", folder / "registry.log"
    storage = f"storage:\n  filesystem:\n    rootdirectory: {folder}/registry\n"
    config.write_text(f"version: 0.1\n{storage}http:\n  addr: {address}\n")
    command = ["docker-registry", "serve", str(config)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as registry:
        try:
            _wait(lambda: _is_registry(address), registry, log)
            yield address
        finally:
            registry.terminate()


def triton_cpu_base(host: str) -> str:
    """The CPU base on that daemon: built from the real template the first time, loaded from `.cache` the next."""
    version = importlib.metadata.version("onnxruntime")
    return _built(host, "triton-cpu", lambda folder, system: write_base_context(folder, system, version))


def sandbox_image(host: str) -> str:
    """The image of the container sandbox on that daemon, made as the CPU base is."""
    return _built(host, "sandbox", write_sandbox_context)


def _built(host: str, name: str, write_context: Callable[[Path, str], Path]) -> str:
    """The tag of the image that our template makes on the bootstrapped system, once for all that goes into it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock, closing(docker.DockerClient(base_url=host, version="auto")) as client:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory() as scratch:
            system = os.environ.get("HEADGATE_TEST_BASE_IMAGE") or f"headgate-test/python:{_digest(_system_parts())}"
            context = write_context(Path(scratch, "base"), system)
            key = _digest([part.read_bytes() for part in sorted(context.iterdir())])
            tag, kept = f"headgate-test/{name}:{key}", CACHE / f"{_FILES[name]}-{key}.tar"
            if _has(client, tag):
                return tag
            if kept.exists():
                with kept.open("rb") as file:
                    client.images.load(file)
                return tag
            if not os.environ.get("HEADGATE_TEST_BASE_IMAGE"):
                _import_system(client, system, Path(scratch))
            with closing(DockerEngine(host, build_network="host")) as engine:
                engine.build(context, tag, {})
        _keep(client, tag, kept)
        return tag


def _import_system(client: docker.DockerClient, tag: str, scratch: Path) -> None:
    """A small Debian with Python and pip, which trusts the authorities that this machine trusts."""
    if _has(client, tag):
        return
    kept = CACHE / f"system-{tag.partition(':')[2]}.tar"
    if not kept.exists():
        root = scratch / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"debootstrap failed: {done.stdout[-2000:]}{done.stderr[-500:]}")
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(root / waste)
        authorities, pip = _system_parts()[1:]
        (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(authorities)
        (root / "etc/pip.conf").write_bytes(pip)
        draft = kept.with_suffix(".draft")
        subprocess.run(["tar", "-C", str(root), "-cf", str(draft), "."], check=True)
        _replace(draft, kept, "system-*.tar")
    repository, _, version = tag.partition(":")
    client.api.import_image_from_file(str(kept), repository=repository, tag=version)


def _system_parts() -> list[bytes]:
    """What the bootstrapped system depends on: its packages, this machine's authorities, and its index of packages."""
    authorities = ssl.get_default_verify_paths().cafile
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    pip = "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n" + (f"index-url = {index}\n" if index else "")
    return [f"{SUITE} {PACKAGES}".encode(), Path(authorities).read_bytes() if authorities else b"", pip.encode()]


def _keep(client: docker.DockerClient, tag: str, file: Path) -> None:
    draft = file.with_suffix(".draft")
    with draft.open("wb") as output:
        for chunk in client.images.get(tag).save(named=True):
            output.write(chunk)
    _replace(draft, file, f"{file.name.partition('-')[0]}-*.tar")


def _replace(draft: Path, file: Path, older: str) -> None:
    """Put the draft in place, whole or not at all, and throw away what an earlier template made."""
    for old in CACHE.glob(older):
        old.unlink()
    draft.replace(file)


def _digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]


def _has(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


_BRIDGES = itertools.count()


@contextmanager
def _bridge() -> Iterator[str]:
    number = next(_BRIDGES)  # several engines may run at a time
    name = f"hg{os.getpid()}-{number}"
    subprocess.run(["ip", "link", "add", "name", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"10.231.{(os.getpid() + number) % 250}.1/24", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def _wait(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{log.stem} did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _answers(host: str) -> bool:
    with closing(TritonDocker(host)) as server:
        try:
            return server.names() == []
        except Transient:
            return False


def _is_registry(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/v2/", trust_env=False).is_success
    except httpx.TransportError:
        return False

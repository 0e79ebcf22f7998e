"""What goes into a container and what comes out of it. Nothing that comes out is followed, run, or believed."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Never

from app.adapters.docker_sandbox.streams import Streams
from app.domain.errors import Fault, Rejected
from app.ports import SandboxJob
from app.sandbox.program import HOME
from app.sandbox.result import not_plain

FILTER = f"{HOME}/sandbox/filter.bpf"
PACKAGES = f"{HOME}/packages"
"""Where the packages lie that a job brings along."""
MAX_ENTRIES = 200
_LONGEST_LINE, _LONGEST_NAME, _DEEPEST, _CHUNK, _SHOWN = 16 << 10, 255, 12, 1 << 20, 60
_REMEDY = "Log the model again; if this repeats, look at what runs when it is loaded."


def pack(into: IO[bytes], programs: Path, rules: bytes, job: SandboxJob) -> None:
    """Write the archive that is unpacked at the container's root: the programs and their filter, the job's inputs, its
    packages and its request."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(programs, f"{HOME}/sandbox", filter=_plain)
        for name, path in job.inputs.items():
            archive.add(path, f"/in/{name}", filter=_plain)
        if job.environment:
            archive.add(job.environment, PACKAGES, filter=_plain)
        for place, data in ((FILTER, rules), ("/in/request.json", json.dumps(dict(job.request)).encode())):
            member = tarfile.TarInfo(place.lstrip("/"))
            member.size, member.mode = len(data), 0o444
            archive.addfile(member, io.BytesIO(data))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Of nobody's and at no time, and for reading only."""
    if member.name.endswith("/__pycache__"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o555 if member.isdir() else 0o444
    return member


def receive(streams: Streams, output: Path, most_bytes: int) -> None:
    """Write what the warden sends into the empty folder `output`, as plain files and folders.

    Raises:
        Rejected: it is too much, no plain file, oddly named, or no sense at all.
        Fault: it cannot be kept here.
        Broken, Closed: as `Streams.read`.
    """
    left = most_bytes
    for _ in range(MAX_ENTRIES + 1):
        entry = parse(streams)
        kind, name, size = entry.get("kind"), entry.get("name"), entry.get("size", 0)
        if kind == "end":
            return
        if not isinstance(name, str) or not isinstance(size, int) or size < 0:
            _refuse("sent a list of files that makes no sense")
        if kind not in ("file", "folder"):
            raise not_plain(name)
        left -= size
        if left < 0:
            break
        _write(streams, _place(output, name), size if kind == "file" else None)
    _refuse("wrote too much")


def parse(streams: Streams) -> Mapping[str, Any]:
    """The next line as a JSON object; raises Rejected where it is none."""
    try:
        value = json.loads(streams.line(_LONGEST_LINE))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        _refuse("sent a list of files that makes no sense")
    return value


def _place(output: Path, name: str) -> Path:
    parts = name.split("/")
    odd = any(
        part in ("", ".", "..") or "\0" in part or len(part.encode(errors="replace")) > _LONGEST_NAME for part in parts
    )
    if odd or len(parts) > _DEEPEST:
        _refuse(f"left {name[:_SHOWN]!a}, which is oddly named")
    return output.joinpath(*parts)


def _write(streams: Streams, path: Path, size: int | None) -> None:
    try:
        if size is None:
            path.mkdir(mode=0o700)
            return
        with path.open("xb") as file:
            while size:
                size -= file.write(streams.read(min(size, _CHUNK)))
    except (FileExistsError, FileNotFoundError, NotADirectoryError, UnicodeError):
        _refuse(f"left {path.name[:_SHOWN]!a}, which is oddly named")
    except OSError as error:
        raise Fault(f"What the sandbox left cannot be kept: {error.strerror}", "Make room on the disk.") from error


def _refuse(what: str) -> Never:
    raise Rejected(f"The sandboxed program {what}.", _REMEDY)

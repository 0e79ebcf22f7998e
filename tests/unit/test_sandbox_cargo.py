"""What comes out of a container is believed in nothing: odd lists of files are refused, and nothing lands beside."""

import json
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.adapters.docker_sandbox.cargo import MAX_ENTRIES, pack, receive
from app.adapters.docker_sandbox.streams import Broken, Closed, Streams
from app.domain.errors import Rejected
from app.ports import SandboxJob

STDOUT, STDERR = 1, 2
END = {"kind": "end"}


class _Attached:
    """A connected socket in the form in which the SDK gives it out."""

    def __init__(self, end: socket.socket) -> None:
        self._sock = end
        self._response = end

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4) + payload


@contextmanager
def streams(data: bytes, seconds: float = 10) -> Iterator[Streams]:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        found = Streams(_Attached(ours), seconds)
        try:
            yield found
        finally:
            found.close()


def land(output: Path, *parts: dict[str, Any] | bytes, most: int = 1 << 20) -> None:
    sent = b"".join(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n" for part in parts)
    with streams(frame(STDOUT, sent)) as found:
        receive(found, output, most)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_files_and_folders_land(output: Path) -> None:
    land(
        output,
        {"kind": "file", "name": "result.json", "size": 2},
        b"{}",
        {"kind": "folder", "name": "a"},
        {"kind": "file", "name": "a/b.bin", "size": 3},
        b"\n\n\n",
        END,
    )
    assert (output / "result.json").read_bytes() == b"{}"
    assert (output / "a" / "b.bin").read_bytes() == b"\n\n\n"
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/x", "a/../../x", "..", ".", "", "a//b", "a/", "x\0y", "n" * 300, "/".join("d" * 40)),
        *("no/such/folder", 7, "\ud800"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_odd_names_are_refused_and_nothing_lands_elsewhere(output: Path, name: object, kind: str) -> None:
    if name == "no/such/folder" and kind == "folder":
        name = "no/such/folder/at/all"
    with pytest.raises(Rejected) as caught:
        land(output, {"kind": kind, "name": name, "size": 1}, b"x", END)
    assert caught.value.remedy
    assert caught.value.reason.isprintable()
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ([{"kind": "other", "name": "x"}], "no plain file"),
        ([{"kind": "link", "name": "x"}], "no plain file"),
        ([{"name": "x"}], "no plain file"),
        ([{"kind": "file", "name": "x", "size": 2 << 20}], "wrote too much"),
        ([{"kind": "file", "name": "x", "size": -1}], "no sense"),
        ([{"kind": "file", "name": "x", "size": "1"}], "no sense"),
        (
            [{"kind": "file", "name": "x", "size": 1}, b"x", {"kind": "file", "name": "x", "size": 1}, b"x"],
            "oddly named",
        ),
        ([{"kind": "file", "name": "x", "size": 1}, b"x", {"kind": "folder", "name": "x/y"}], "oddly named"),
        ([{"kind": "folder", "name": str(n)} for n in range(MAX_ENTRIES + 2)], "wrote too much"),
        ([b"[]\n"], "no sense"),
        ([b"nonsense\n"], "no sense"),
        ([b"\xff\xfe\n"], "no sense"),
        ([b"[" * 15_000 + b"\n"], "no sense"),
        ([b"x" * 40_000], "no sense"),
    ],
)
def test_nonsense_is_refused(output: Path, parts: list[Any], word: str) -> None:
    with pytest.raises(Rejected, match=word):
        land(output, *parts, END)


def test_an_end_in_the_middle_is_no_end(output: Path) -> None:
    with pytest.raises(Closed):
        land(output, {"kind": "file", "name": "x", "size": 10}, b"half")


def test_what_the_program_says_is_no_file(output: Path) -> None:
    """It may write lines that look like the warden's: they are on another stream."""
    forged = frame(STDERR, json.dumps({"kind": "file", "name": "forged", "size": 0}).encode() + b"\n")
    listed = frame(STDOUT, b'{"kind": "fi') + forged + frame(STDOUT, b'le", "name": "x", "size": 0}\n')
    with streams(listed + frame(STDOUT, json.dumps(END).encode() + b"\n")) as found:
        receive(found, output, 10)
        assert b"forged" in found.talk.tail
    assert [path.name for path in output.iterdir()] == ["x"]


def test_silence_ends_with_the_time() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        found = Streams(_Attached(ours), 0.05)
        with pytest.raises(Broken, match="time"):
            found.read(1)
        found.close()


def test_what_goes_in_is_of_nobodys_and_for_reading_only(tmp_path: Path) -> None:
    (tmp_path / "programs" / "__pycache__").mkdir(parents=True)
    (tmp_path / "programs" / "scan.py").write_text("x")
    (tmp_path / "rows.csv").write_text("a\n")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "numpy.py").write_text("x")
    inputs = {"rows": tmp_path / "rows.csv"}
    job = SandboxJob("scan", inputs, {"seed": 1}, tmp_path, environment=tmp_path / "packages")
    with (tmp_path / "cargo").open("wb") as file:
        pack(file, tmp_path / "programs", b"rules", job)

    with tarfile.open(tmp_path / "cargo") as archive:
        members = {member.name: member for member in archive}
    assert set(members) == {
        *("headgate/sandbox", "headgate/sandbox/scan.py", "headgate/sandbox/filter.bpf"),
        *("headgate/packages", "headgate/packages/numpy.py", "in/rows", "in/request.json"),
    }
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}
    assert {member.mode for member in members.values() if member.isfile()} == {0o444}

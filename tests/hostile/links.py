"""What is no plain file, and names that lead elsewhere or mean two things: refused before anything is looked at."""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.hostile import CARD, Artifact, Artifacts, Bait

Deed = Callable[[Path, Bait], object]


def _named(*names: str | bytes) -> Deed:
    def make(folder: Path, _bait: Bait) -> None:
        for name in names:
            (folder / os.fsdecode(name)).touch()

    return make


def _deep(folder: Path, _bait: Bait) -> None:
    (folder / "/".join("abcdefghijklmnop")).mkdir(parents=True)


def _folders(folder: Path, _bait: Bait) -> None:
    for name in ("data", "Data"):
        (folder / name).mkdir()


DEEDS: Mapping[str, tuple[Deed, str]] = {
    "a link to the secret": (lambda folder, bait: (folder / "odd").symlink_to(bait.secret), "symbolic link"),
    "a link as the model": (lambda folder, bait: (folder / "model.pkl").symlink_to(bait.secret), "symbolic link"),
    "a link to a folder": (lambda folder, bait: (folder / "odd").symlink_to("/etc"), "symbolic link"),
    "a link to nowhere": (lambda folder, bait: (folder / "odd").symlink_to("nowhere"), "symbolic link"),
    "a link in a circle": (lambda folder, bait: (folder / "odd").symlink_to("odd"), "symbolic link"),
    "a link within the model": (lambda folder, bait: (folder / "odd").symlink_to("MLmodel"), "symbolic link"),
    "a hard link": (lambda folder, bait: os.link(bait.secret, folder / "odd"), "hard-linked"),
    "a fifo": (lambda folder, bait: os.mkfifo(folder / "odd"), "fifo"),
    "a socket": (lambda folder, bait: os.mknod(folder / "odd", 0o600 | stat.S_IFSOCK), "socket"),
    "a name with a line break": (_named("a\nb"), "control"),
    "a name with an escape": (_named("a\x1b[2Jb"), "control"),
    "a name written backwards": (_named("model\u202elkp.txt"), "control"),
    "a name with nothing to see": (_named("model\u200b.pkl"), "control"),
    "a name with backslashes": (_named("..\\..\\evil"), "backslash"),
    "a name of no alphabet": (_named(b"\xff\xfe"), "UTF-8"),
    "a name that is too long": (_named("x" * 201), "longer"),
    "two names in one": (_named("mlMODEL"), "only in case"),
    "two forms of one name": (_named("\u00e9", "e\u0301"), "only in case"),
    "two folders in one": (_folders, "only in case"),
    "folders without end": (_deep, "deeper"),
}


def artifacts() -> Artifacts:
    """Links, devices and names."""
    for name, (deed, told) in DEEDS.items():

        def make(folder: Path, bait: Bait, deed: Deed = deed) -> None:
            (folder / "MLmodel").write_text(CARD)
            deed(folder, bait)

        yield Artifact("name or link", name, make, told)

"""The local artifact store: what it refuses, what its digests mean, and that it is write-once and crash-safe."""

import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.adapters.local_store import LocalStore, Quotas
from app.domain.errors import Fault, Rejected


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "model.pkl").write_bytes(b"\x80\x04N.")
    return folder


def test_a_tree_comes_back_as_it_went_in_and_read_only(store: LocalStore, folder: Path) -> None:
    stored = store.tree(store.put_tree(folder))

    assert (stored / "data" / "model.pkl").read_bytes() == b"\x80\x04N."
    modes = {stat.S_IMODE(path.stat().st_mode) for path in stored.rglob("*")}
    assert modes == {0o444, 0o555}


def test_the_digest_is_the_hash_of_the_documented_list(store: LocalStore, folder: Path) -> None:
    files = {"MLmodel": b"flavors: {}\n", "data/model.pkl": b"\x80\x04N."}
    listed = [[path, len(data), hashlib.sha256(data).hexdigest()] for path, data in sorted(files.items())]
    text = json.dumps(listed, separators=(",", ":")).encode()

    assert store.put_tree(folder) == f"sha256:{hashlib.sha256(text).hexdigest()}"


def test_putting_twice_is_the_same_as_once(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    first = store.put_tree(folder)
    inode = store.tree(first).stat().st_ino

    assert store.put_tree(folder) == first
    assert store.tree(first).stat().st_ino == inode
    assert list((tmp_path / "store" / "incoming").iterdir()) == []


names = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=8)
trees = st.dictionaries(st.tuples(names, names).map("/".join), st.binary(max_size=40), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, trees)
def test_digests_are_equal_exactly_where_contents_are(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("digests")
    store, digests = LocalStore(root / "store"), []
    for number, tree in enumerate((one, other)):
        for path, data in reversed(list(tree.items())):
            target = root / str(number) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        digests.append(store.put_tree(root / str(number)))

    assert (digests[0] == digests[1]) == (one == other)


def _link(folder: Path) -> None:
    (folder / "odd").symlink_to("/etc/passwd")


def _link_to_folder(folder: Path) -> None:
    (folder / "odd").symlink_to("/etc", target_is_directory=True)


def _hard_link(folder: Path) -> None:
    (folder / "odd").hardlink_to(folder / "MLmodel")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "odd")


def _socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "odd"))


def _named(name: str | bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name)))).write_bytes(b"")  # noqa: PTH118 - bytes

    return make


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (_link, "symbolic link"),
        (_link_to_folder, "symbolic link"),
        (_hard_link, "hard-linked"),
        (_fifo, "fifo"),
        (_socket, "socket"),
        (_named("..\\..\\evil"), "backslash"),
        (_named("a\nb"), "control"),
        (_named("invoice\u202efdp.exe"), "control"),
        (_named(b"\xff\xfe"), "UTF-8"),
        (_named("x" * 201), "longer"),
        (_named("mlMODEL"), "only in case"),
    ],
)
def test_what_is_no_plain_file_is_refused_by_name(
    store: LocalStore, folder: Path, tmp_path: Path, make: Callable[[Path], None], word: str
) -> None:
    make(folder)

    with pytest.raises(Rejected, match=word) as caught:
        store.put_tree(folder)

    assert caught.value.remedy
    assert caught.value.reason.isprintable()
    assert list((tmp_path / "store" / "trees").iterdir()) == []
    assert list((tmp_path / "store" / "incoming").iterdir()) == []


def test_a_device_is_refused(store: LocalStore) -> None:
    with pytest.raises(Rejected, match="device"):
        store.put_file(Path(os.devnull))


def test_folders_that_differ_only_in_case_are_refused(store: LocalStore, folder: Path) -> None:
    (folder / "Data").mkdir()

    with pytest.raises(Rejected, match="only in case"):
        store.put_tree(folder)


@pytest.mark.parametrize(
    ("quotas", "word"),
    [
        (Quotas(max_files=1), "more than 1 files"),
        (Quotas(max_bytes=14), "quota of bytes"),
        (Quotas(max_depth=0), "deeper than 0"),
    ],
)
def test_quotas_hold(tmp_path: Path, folder: Path, quotas: Quotas, word: str) -> None:
    with pytest.raises(Rejected, match=word):
        LocalStore(tmp_path / "store", quotas).put_tree(folder)


def test_an_empty_tree_is_refused(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "empty" / "folder").mkdir(parents=True)

    with pytest.raises(Rejected, match="no files"):
        store.put_tree(tmp_path / "empty")


def test_a_file_comes_back_under_the_hash_of_its_content(store: LocalStore, folder: Path) -> None:
    digest = store.put_file(folder / "MLmodel")

    assert digest == f"sha256:{hashlib.sha256(b'flavors: {}' + bytes([10])).hexdigest()}"
    assert store.file(digest).read_text() == "flavors: {}\n"
    assert store.put_file(folder / "MLmodel") == digest
    store.verify(digest)


def test_a_linked_file_is_refused(store: LocalStore, folder: Path) -> None:
    (folder / "link").symlink_to(folder / "MLmodel")

    with pytest.raises(Rejected, match="symbolic link"):
        store.put_file(folder / "link")


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "../../etc", "sha256:../../x", "md5:" + "0" * 32])
def test_what_is_not_there_is_our_fault(store: LocalStore, digest: str) -> None:
    with pytest.raises(Fault):
        store.tree(digest)
    with pytest.raises(Fault):
        store.file(digest)
    with pytest.raises(Fault):
        store.verify(digest)


def _tamper(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_changed_size_or_name_is_noticed_when_read(store: LocalStore, folder: Path) -> None:
    digest = store.put_tree(folder)
    tree = store.tree(digest)
    _tamper(tree / "MLmodel", b"longer than it was")

    with pytest.raises(Fault, match="MLmodel"):
        store.tree(digest)


def test_a_changed_manifest_is_noticed_when_read(store: LocalStore, folder: Path) -> None:
    digest = store.put_tree(folder)
    _tamper(store.tree(digest).parent / "manifest.json", b"[]")

    with pytest.raises(Fault, match="manifest"):
        store.tree(digest)


def test_verify_notices_one_changed_byte_and_a_new_copy_heals_it(store: LocalStore, folder: Path) -> None:
    digest = store.put_tree(folder)
    _tamper(store.tree(digest) / "MLmodel", b"flavors: []\n")

    assert store.tree(digest)
    with pytest.raises(Fault, match="MLmodel"):
        store.verify(digest)
    assert store.put_tree(folder) == digest
    store.verify(digest)


def test_a_crash_in_the_middle_leaves_nothing(
    store: LocalStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    calls: list[int] = []
    real = os.fsync

    def die_at_third(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise Killed
        real(descriptor)

    monkeypatch.setattr(os, "fsync", die_at_third)
    with pytest.raises(Killed):
        store.put_tree(folder)
    monkeypatch.undo()

    assert list((tmp_path / "store" / "trees").iterdir()) == []
    store.tree(store.put_tree(folder))


def test_leftovers_of_a_killed_process_are_swept_a_day_later(tmp_path: Path) -> None:
    LocalStore(tmp_path)
    old, new = tmp_path / "incoming" / "old", tmp_path / "incoming" / "new"
    for leftover in (old, new):
        (leftover / "tree").mkdir(parents=True)
        (leftover / "tree").chmod(0o555)
    os.utime(old, (time.time() - 90_000,) * 2)

    LocalStore(tmp_path)

    assert not old.exists()
    assert new.exists()


def test_scratch_is_empty_each_time_and_follows_no_link(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    first = store.scratch("promotion-1")
    (first / "closed").mkdir(mode=0)
    (first / "link").symlink_to(outside, target_is_directory=True)

    assert list(store.scratch("promotion-1").iterdir()) == []
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\n"])
def test_scratch_takes_plain_names_only(store: LocalStore, name: str) -> None:
    with pytest.raises(Fault, match="scratch"):
        store.scratch(name)

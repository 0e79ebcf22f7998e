"""Names of files: the rules, and that whatever passes them comes through a store unchanged."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.adapters.local_store import LocalStore
from app.domain import names
from app.domain.errors import Rejected

anything = st.text(st.characters(), max_size=230) | st.text(
    st.sampled_from("aAb\u0131./\\\0\n ~\u202eé\u017fßK"), max_size=6
)


@settings(deadline=None, max_examples=300)
@given(anything)
@example("\ud800")
@example("é" * 101)
def test_a_good_name_stays_in_its_folder_and_can_be_written(name: str) -> None:
    problem = names.problem(name, name)

    if problem:
        assert problem.isprintable()
        return
    assert Path("/model", name).parent == Path("/model") and name not in (".", "..")
    assert os.fsencode(name).decode() == name and 0 < len(os.fsencode(name)) <= names.NAME_BYTES
    assert name.isprintable() or any(unicodedata.category(c) in ("Zs", "Cn", "Co") for c in name)


@given(anything)
def test_folding_is_stable_and_blind_to_case_and_form(path: str) -> None:
    once = names.folded(path)

    assert names.folded(once) == once
    assert names.folded(path.casefold()) == once
    assert names.folded(unicodedata.normalize("NFD", path)) == names.folded(unicodedata.normalize("NFC", path))


@given(anything)
def test_what_is_shown_is_plain_and_short(path: str) -> None:
    assert names.shown(path).isascii() and names.shown(path).isprintable() and len(names.shown(path)) <= 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@settings(deadline=None, max_examples=60)
@given(st.sets(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20), max_size=4))
def test_a_tree_of_any_names_is_kept_as_it_is_or_refused(folder: Path, found: set[str]) -> None:
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    wanted = {name for name in found if name not in (".", "..")}
    for name in wanted:
        (model / name).write_bytes(name.encode())
    good = all(not names.problem(name, name) for name in wanted)
    apart = len({names.folded(name) for name in wanted}) == len(wanted)

    store = LocalStore(folder / "store")
    try:
        kept = store.tree(store.put_tree(model))
    except Rejected as error:
        assert not (good and apart and wanted), error.reason
        assert error.reason.isprintable()
    else:
        assert good and apart
        assert {file.name: file.read_bytes() for file in kept.iterdir()} == {name: name.encode() for name in wanted}

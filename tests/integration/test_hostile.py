"""Hostile models of many kinds, each through the real intake and scan: rejected with a reason, and none acts."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db.migrate import upgrade
from app.db.session import Database
from tests.hostile import Artifact, everything, in_model
from tests.hostile.pickles import evil
from tests.hostile.trial import Verdict, Watch, judge, watching

ALL = everything()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def watch(folder: Path) -> Iterator[Watch]:
    (folder / "bait").mkdir()
    with watching(folder / "bait") as made:
        yield made


@pytest.fixture(scope="module")
def verdicts(folder: Path, watch: Watch) -> Iterator[dict[str, Verdict]]:
    """Of all artifacts, and of one that is harmless."""
    upgrade(f"sqlite:///{folder / 'headgate.db'}")
    database = Database(f"sqlite:///{folder / 'headgate.db'}")
    harmless = Artifact("harmless", "a list", in_model(lambda bait: b"\x80\x04]."))
    found = judge([*ALL, harmless], database, folder, watch.bait)
    database.close()
    yield {str(verdict.artifact): verdict for verdict in found}


@pytest.mark.parametrize("artifact", ALL, ids=str)
def test_it_is_rejected_with_a_reason(verdicts: dict[str, Verdict], artifact: Artifact) -> None:
    verdict = verdicts[str(artifact)]

    assert verdict.state == "REJECTED", (verdict.state, verdict.reason)
    assert artifact.told in verdict.reason or artifact.told in str(verdict.scan), verdict.reason
    assert verdict.reason.isprintable() and len(verdict.reason) < 1500
    assert "convert" not in verdict.evidence  # nobody has loaded it


def test_none_has_acted(verdicts: dict[str, Verdict], watch: Watch, folder: Path) -> None:
    assert len(verdicts) > 150
    assert watch.traces(folder / "store") == []


def test_a_harmless_model_is_not_rejected_by_the_scan(verdicts: dict[str, Verdict]) -> None:
    """Else all the others would prove nothing: this one gets as far as to be loaded, which is not tried here."""
    scan = verdicts["harmless: a list"].scan

    assert (scan["findings"], scan["errors"], scan["scanned"]) == ([], [], 2)


LOADERS = {
    "pickle": "import pickle; pickle.load(open(file, 'rb'))",
    "joblib": "import joblib; joblib.load(file)",
    "numpy": "import numpy; numpy.load(file, allow_pickle=True)",
}


@pytest.mark.parametrize("loader", LOADERS)
def test_the_bait_is_taken_where_nobody_guards_it(loader: str, tmp_path: Path) -> None:
    """The same payload, loaded as a careless server would: it acts, and the watch sees it."""
    with watching(tmp_path) as watch:
        (tmp_path / "model.pkl").write_bytes(evil(watch.bait))
        code = f"import sys, contextlib; file = sys.argv[1]\nwith contextlib.suppress(Exception): {LOADERS[loader]}"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pkl")], check=True, timeout=60)
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "leak").write_bytes(watch.bait.secret.read_bytes())

        traces = watch.traces(tmp_path / "copy")

    assert {"somebody called", "the canary was written"} <= set(traces)
    assert any("the secret is in" in trace for trace in traces)

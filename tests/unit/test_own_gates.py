"""Own gates: a real entry point of a package that lies on the path, and all that can go wrong with one."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.gates import GateResult, Rank
from app.domain.measured import Measurements
from app.domain.policy import OwnGate
from workers.own_gates import judge_own

MEASURED = Measurements(100, 0, 0.0, {"rmse": 0.5}, latency_ms={1: 0.2})
GOOD = """
def gate(measurements, options):
    value = measurements["metrics"]["rmse"]
    verdict = "pass" if value <= options["max"] else "fail"
    return {"verdict": verdict, "measured": value, "limit": options["max"], "reason": f"rmse is {value}"}
"""
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with one gate on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def package(name: str, code: str) -> None:
        module = f"gate_{name}"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[headgate.gates]\n{name} = {module}:gate\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return package


def test_an_installed_gate_judges_by_its_options(install: Install) -> None:
    install("fairness", GOOD)
    assert judge_own(OwnGate("fairness", {"max": 0.6}), MEASURED) == GateResult(
        "own fairness", Rank.PASS, 0.5, 0.6, "rmse is 0.5"
    )
    assert judge_own(OwnGate("fairness", {"max": 0.4}), MEASURED).rank is Rank.FAIL


def test_what_it_gets_is_its_own(install: Install) -> None:
    code = """
def gate(measurements, options):
    measurements["metrics"].clear()
    options.clear()
    return {"verdict": "inconclusive", "reason": "hm"}
"""
    install("clearing", code)
    gate = OwnGate("clearing", {"max": 0.6})
    assert judge_own(gate, MEASURED).rank is Rank.INCONCLUSIVE
    assert (gate.options, MEASURED.metrics) == ({"max": 0.6}, {"rmse": 0.5})


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def gate(m, o): return {'verdict': 'fine', 'reason': ''}", "KeyError"),
        ("def gate(m, o): return {'verdict': 'pass'}", "KeyError"),
        ("def gate(m, o): return None", "AttributeError"),
        ("def gate(m, o): return {'verdict': 'pass', 'reason': '', 'measured': float('nan')}", "ValueError"),
        ("def gate(m, o): return {'verdict': 'pass', 'reason': '', 'measured': 'much'}", "ValueError"),
        ("def gate(m, o): raise RuntimeError('no idea')", "RuntimeError: no idea"),
        ("import sys\ndef gate(m, o): sys.exit(0)", "SystemExit"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("gate = 3", "TypeError"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_whatever_goes_wrong_is_an_error_and_never_a_pass(install: Install, code: str, words: str) -> None:
    install("broken", code)
    found = judge_own(OwnGate("broken"), MEASURED)
    assert found.rank is Rank.ERROR
    assert words in found.reason


def test_a_gate_that_is_not_installed_is_an_error() -> None:
    found = judge_own(OwnGate("nowhere"), MEASURED)
    assert found.rank is Rank.ERROR
    assert "0 gates named nowhere" in found.reason

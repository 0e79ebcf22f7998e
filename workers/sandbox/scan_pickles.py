"""What a pickle would import, judged by two scanners' lists of the bad and by our own list of the good.

Both scanners are given the runnable part alone: what follows it, or breaks it, would lead them astray.
"""

import copy
import io
from dataclasses import dataclass, field
from typing import Any

from .allowed import is_allowed
from .pickle_prefix import Prefix, is_installed

_UNLISTED = "LOW"
# picklescan's list has it for what it calls; whatever that is, is an import of its own and judged as one.
OVERRULED = frozenset({("functools", "partial")})


@dataclass
class Verdict:
    """(severity, reason, scanner) of what was found, and why a scanner could not do its work."""

    findings: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def judge(prefix: Prefix, name: str) -> Verdict:
    """The verdict of all three; `name` is for their own messages."""
    verdict = Verdict()
    _by_modelscan(prefix, name, verdict)
    _by_picklescan(prefix, name, verdict)
    return verdict


def _counts(prefix: Prefix, module: str) -> bool:
    """Text may look like an import; of a module that is not here nobody could be harmed by it."""
    return prefix.is_pickle or is_installed(module)


def _by_modelscan(prefix: Prefix, name: str, verdict: Verdict) -> None:
    results = _modelscan(prefix.data, name)
    verdict.errors += [f"modelscan: {error}" for error in results.errors]
    verdict.errors += [f"modelscan skipped it: {skipped.message}" for skipped in results.skipped]
    for issue in results.issues:
        module, operator = str(issue.details.module), str(issue.details.operator)
        severity, scanner = issue.severity.name, "modelscan"
        if severity == _UNLISTED:
            if is_allowed(module, operator) or not _counts(prefix, module):
                continue
            severity, scanner = "UNLISTED", "allow-list"
        verdict.findings.append((severity, f"an import of {module}.{operator}", scanner))


class _Anything(dict[str, str]):
    """A list of unsafe imports that every module is on, so that modelscan reports all it sees."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> str:
        return "*"


def _modelscan(data: bytes, name: str) -> Any:
    """modelscan's own result for a pickle, everything that is imported listed at the lowest severity."""
    from modelscan.model import Model
    from modelscan.scanners.pickle.scan import PickleUnsafeOpScan
    from modelscan.scanners.scan import ScanResults
    from modelscan.settings import DEFAULT_SETTINGS, SupportedModelFormats

    settings = copy.deepcopy(DEFAULT_SETTINGS)
    settings["unsafe_globals"][_UNLISTED] = _Anything()
    model = Model(name, io.BytesIO(data))
    model.set_context("formats", [SupportedModelFormats.PICKLE])
    try:
        return PickleUnsafeOpScan(settings).scan(model)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - an attack on the scanner may make it raise anything, and is an error
        return ScanResults([], [f"it failed: {type(error).__name__}: {error}"], [])


def _by_picklescan(prefix: Prefix, name: str, verdict: Verdict) -> None:
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    try:
        result = scan_pickle_bytes(io.BytesIO(prefix.data), name)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        verdict.errors.append(f"picklescan failed: {type(error).__name__}: {error}")
        return
    if result.scan_err:
        verdict.errors.append("picklescan cannot read it to its end")
    for found in result.globals:
        dangerous = found.safety is SafetyLevel.Dangerous and (found.module, found.name) not in OVERRULED
        if dangerous and _counts(prefix, found.module):
            verdict.findings.append(("CRITICAL", f"an import of {found.module}.{found.name}", "picklescan"))

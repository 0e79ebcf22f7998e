"""The two scanners as their makers meant them: a folder in, by extension; each with all that it reports."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import scan_pickles


@dataclass
class Seen:
    """(file, severity, reason) of what was found, and what could not be looked at."""

    findings: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def modelscan(root: Path) -> Seen:
    """modelscan: pickles, TensorFlow, Keras and PyTorch by their extensions."""
    from modelscan.modelscan import ModelScan
    from modelscan.settings import DEFAULT_SETTINGS
    from modelscan.skip import SkipCategories

    settings = copy.deepcopy(DEFAULT_SETTINGS)
    # It reaches for a private function that NumPy 2.4 no longer has; reading by content does its work.
    settings["scanners"]["modelscan.scanners.NumpyUnsafeOpScan"]["enabled"] = False
    # They want TensorFlow and h5py, which are no part of Headgate; our own list of Keras' layers does their work.
    for name in ("KerasLambdaDetectScan", "H5LambdaDetectScan"):
        settings["scanners"][f"modelscan.scanners.{name}"]["enabled"] = False
    scanner = ModelScan(settings)
    try:
        scanner.scan(root)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - an attack on the scanner may make it raise anything, and is an error
        return Seen([], [f"it failed: {type(error).__name__}: {error}"])
    found = [
        (Path(issue.details.source).name, issue.severity.name, f"{issue.details.module}.{issue.details.operator}")
        for issue in scanner.issues.all_issues
    ]
    # It did not look at what it does not know by name; that was done by content.
    harmless = SkipCategories.SCAN_NOT_SUPPORTED
    skipped = [f"it skipped {s.source}: {s.message}" for s in scanner.skipped if s.category != harmless]
    # What PyTorch exports holds an archive of its sample inputs, which is read by content, too.
    errors = [str(error) for error in scanner.errors if "nested zip" not in str(error)]
    return Seen(
        [(file, severity, f"an import of {what}") for file, severity, what in found],
        [*errors, *skipped],
    )


def picklescan(root: Path) -> Seen:
    """picklescan: pickles, arrays, zip files and PyTorch by their extensions."""
    whole = _picklescan(root, ".")
    if not whole.findings and not whole.errors:
        return whole
    seen = Seen()  # It does not say in which file: each is looked at by itself.
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        one = _picklescan(root, f"^{re.escape(str(path))}$")
        name = path.relative_to(root).as_posix()
        seen.findings += [(name, severity, reason) for _, severity, reason in one.findings]
        seen.errors += [f"{name!a}: {error}" for error in one.errors]
    return seen


def _picklescan(root: Path, pattern: str) -> Seen:
    from picklescan.scanner import SafetyLevel, ScanFilter, scan_directory_path

    try:
        result = scan_directory_path(str(root), ScanFilter(include=[re.compile(pattern)]))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return Seen([], [f"it failed: {type(error).__name__}: {error}"])
    found = [
        ("", "CRITICAL", f"an import of {one.module}.{one.name}")
        for one in result.globals
        if one.safety is SafetyLevel.Dangerous and (one.module, one.name) not in scan_pickles.OVERRULED
    ]
    return Seen(found, ["it could not read a file to its end"] if result.scan_err else [])


SCANNERS: Mapping[str, Callable[[Path], Seen]] = {"modelscan": modelscan, "picklescan": picklescan}

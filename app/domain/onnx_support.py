"""Which ONNX models a server can load: the table by ONNX Runtime's version, and Triton's releases by that.

The runtimes were asked themselves: each was given models stamped with ever higher numbers until it refused one as being
under development. Which runtime is in which Triton release is from NVIDIA's compatibility matrix
(docs/introduction/compatibility.md of triton-inference-server/server).
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_NGC = re.compile(r"/tritonserver:(\d\d)\.(\d\d)")


@dataclass(frozen=True)
class Support:
    """The highest opset of ONNX, the highest opset of ai.onnx.ml, and the highest version of the file format that a
    runtime loads; `runtime` names it for people."""

    runtime: str
    opset: int
    ml_opset: int
    ir_version: int

    def as_json(self) -> dict[str, str | int]:
        return asdict(self)


RUNTIMES: Mapping[tuple[int, int], tuple[int, int, int]] = {
    (1, 22): (22, 5, 10),
    (1, 23): (23, 5, 11),
    (1, 24): (25, 5, 13),
    (1, 27): (26, 5, 13),
    (1, 28): (26, 5, 13),
    (1, 32): (28, 5, 14),
}
"""By ONNX Runtime's version: opset, ai.onnx.ml opset, IR version."""

TRITON: Mapping[tuple[int, int], tuple[int, int]] = {
    (25, 7): (1, 22),
    (25, 8): (1, 23),
    (26, 2): (1, 24),
    (26, 7): (1, 27),
    (26, 8): (1, 28),
}
"""By Triton's release, from which on it carries that ONNX Runtime."""


def of_runtime(version: str) -> Support:
    """What an ONNX Runtime of this version loads; one between two rows, or after the last, is taken for the older: a
    new one still loads what an old one did. One before the first row is taken for that, as none such is served."""
    major, minor = (int(part) for part in version.split(".")[:2])
    row = max((row for row in RUNTIMES if row <= (major, minor)), default=min(RUNTIMES))
    return Support(f"ONNX Runtime {version}", *RUNTIMES[row])


def of_image(image: str) -> Support | None:
    """What the Triton in NVIDIA's image of this name loads; None where the name is not one of theirs."""
    found = _NGC.search(image)
    if found is None:
        return None
    release = (int(found[1]), int(found[2]))
    row = max((row for row in TRITON if row <= release), default=min(TRITON))
    runtime = "{}.{}".format(*TRITON[row])
    return Support(f"ONNX Runtime {runtime} of Triton {found[1]}.{found[2]}", *RUNTIMES[TRITON[row]])

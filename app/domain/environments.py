"""The rules of models' own environments: which packages one may be made of, what is added to load and to convert, and
when Headgate's own packages will do."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.digests import digest_json

ALLOWED: Sequence[str] = (
    "catboost",
    "cloudpickle",
    "joblib",
    "keras",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "skops",
    "tensorflow",
    "tensorflow-cpu",
    "tf2onnx",
    "threadpoolctl",
    "torch",
    "xgboost",
    "xgboost-cpu",
)
"""What a model may ask for, unless the setting says otherwise. What these depend on comes with them."""

NEEDLESS = frozenset(
    [
        "mlflow",
        "mlflow-skinny",
        "mlflow-tracing",
        "pip",
        "setuptools",
        "wheel",
        "packaging",
        "pyyaml",
        "psutil",
        "typing-extensions",
        "cffi",
        "defusedxml",
        "protobuf",
        "python-dateutil",
        "pytz",
        "tzdata",
        "six",
        "matplotlib",
        "seaborn",
        "boto3",
        "botocore",
        "requests",
    ]
)
"""What MLflow logs and no model needs in order to be loaded: MLflow itself, what installs, what stores, what draws, and
what others bring along. It is left out without a word."""

CONVERTERS = frozenset(["onnx", "onnxruntime", "skl2onnx", "onnxmltools", "onnxscript", "tf2onnx"])
"""Headgate's tools, whatever versions of them a model was logged with: it brings its own."""

_COMPUTES = frozenset(
    [
        "catboost",
        "keras",
        "lightgbm",
        "numpy",
        "pandas",
        "scikit-learn",
        "scipy",
        "tensorflow",
        "tensorflow-cpu",
        "torch",
        "xgboost",
        "xgboost-cpu",
    ]
)
_PROGRAMS = ("numpy", "onnx>=1.21", "onnxruntime>=1.23", "pandas", "pyarrow", "pyyaml")


@dataclass(frozen=True)
class Flavor:
    """The package that loads a flavor of MLflow, the key of MLmodel with its version, and what converts it to ONNX."""

    package: str
    version_key: str
    converters: tuple[str, ...] = ()


_SKLEARN = ("skl2onnx>=1.19",)
_BOOSTED = ("onnxmltools", *_SKLEARN)
FLAVORS: Mapping[str, Flavor] = {
    "sklearn": Flavor("scikit-learn", "sklearn_version", _SKLEARN),
    "xgboost": Flavor("xgboost", "xgb_version", _BOOSTED),
    "lightgbm": Flavor("lightgbm", "lgb_version", _BOOSTED),
    # These two write ONNX by themselves; torch with a package's help.
    "catboost": Flavor("catboost", "catboost_version"),
    "pytorch": Flavor("torch", "pytorch_version", ("onnxscript",)),
    "keras": Flavor("keras", "keras_version", ("tf2onnx",)),
    "tensorflow": Flavor("tensorflow", "keras_version", ("tf2onnx",)),
}
"""The flavors whose models are loaded by packages, in the order in which one of several is taken. A model that is ONNX
already is not among them: ONNX Runtime is all that it needs."""


def additions(flavor: str, names: Collection[str]) -> tuple[str, ...]:
    """What Headgate's programs need beside the logged packages `names`, as sorted requirements: what they stand on, and
    what converts the flavor. A scikit-learn pipeline may end in another package's estimator, so names count, too."""
    by_package = {found.package: found.converters for found in FLAVORS.values() if found.package in names}
    return tuple(sorted({*_PROGRAMS, *FLAVORS[flavor].converters, *(c for some in by_package.values() for c in some)}))


def is_alike(name: str, logged: str, ours: str) -> bool:
    """Whether a model that was logged with one version of a package may be loaded with ours: of a package that computes
    with the same major and minor version, of any other one with the same major version and no older one."""
    theirs, mine = _numbers(logged), _numbers(ours)
    if name in _COMPUTES:
        return theirs[:2] == mine[:2]
    return theirs[:1] == mine[:1] and mine >= theirs


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
    return (*numbers, *[0] * (3 - len(numbers)))


@dataclass(frozen=True)
class Wanted:
    """What an environment shall be made of: requirements as `name[extras]<specifiers>`, and the versions that are taken
    where they leave a choice."""

    requirements: tuple[str, ...]
    preferred: Mapping[str, str] = field(default_factory=dict)

    def digest(self, interpreter: str) -> str:
        """Names the request for one interpreter, whose name says its version and the kind of machine."""
        asked = {"requirements": sorted(self.requirements), "preferred": dict(self.preferred)}
        return digest_json({**asked, "interpreter": interpreter})

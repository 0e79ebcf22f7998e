"""The rules of models' own environments: which packages one may be made of, what is added to load and to convert, and
when Headgate's own packages will do."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.digests import digest_json

_ALLOWED = """
    numpy scipy pandas pyarrow scikit-learn joblib threadpoolctl cloudpickle skops
    xgboost xgboost-cpu lightgbm catboost torch keras tensorflow tensorflow-cpu
    onnx onnxruntime onnxscript skl2onnx onnxmltools tf2onnx
"""
ALLOWED: Sequence[str] = tuple(sorted(_ALLOWED.split()))
"""What a model may ask for, unless the setting says otherwise. What these depend on comes with them."""

_NEEDLESS = """
    mlflow mlflow-skinny mlflow-tracing databricks-sdk
    pip setuptools wheel packaging jaraco-collections entrypoints pytest
    boto3 botocore requests fsspec sqlalchemy azure-identity azure-storage-blob google-cloud-storage
    ipython ipykernel jinja2 markdown matplotlib pillow pygments rich seaborn tabulate tqdm
    astunparse brotli cffi defusedxml lz4 psutil zstandard
    prettytable protobuf python-dateutil pytz pyyaml six typing-extensions tzdata
"""
NEEDLESS = frozenset(_NEEDLESS.split())
"""What MLflow logs and no model needs in order to be loaded: MLflow itself; what installs, stores, shows or compresses;
and what allowed packages bring along by themselves. It is left out, unless the setting allows it by name."""

CONVERTERS = frozenset(["onnx", "onnxruntime", "skl2onnx", "onnxmltools", "onnxscript", "tf2onnx"])
"""Headgate's tools, whatever versions of them a model was logged with: it brings its own."""

_BOUND_TO_MINOR = """
    numpy scipy pandas scikit-learn xgboost xgboost-cpu lightgbm catboost torch keras tensorflow tensorflow-cpu
"""
_COMPUTES = frozenset(_BOUND_TO_MINOR.split())
_PROGRAMS = ("numpy", "onnx>=1.21", "onnxruntime>=1.23", "pandas", "pyarrow", "pyyaml")


@dataclass(frozen=True)
class Flavor:
    """The package that loads a flavor of MLflow, the key of MLmodel with its version, and what converts it to ONNX."""

    package: str
    version_key: str
    converters: tuple[str, ...] = ()


FLAVORS: Mapping[str, Flavor] = {
    "sklearn": Flavor("scikit-learn", "sklearn_version", ("skl2onnx>=1.19",)),
    # Headgate reads the trees of these two by itself, and catboost writes ONNX.
    "xgboost": Flavor("xgboost", "xgb_version"),
    "lightgbm": Flavor("lightgbm", "lgb_version"),
    "catboost": Flavor("catboost", "catboost_version"),
    "pytorch": Flavor("torch", "pytorch_version", ("onnxscript",)),
    # On torch Keras exports by tracing; on TensorFlow by the package below.
    "keras": Flavor("keras", "keras_version"),
    "tensorflow": Flavor("keras", "keras_version"),
}
"""The flavors whose models are loaded by packages, in the order in which one of several is taken. A model that is ONNX
already is not among them: ONNX Runtime is all that it needs."""


_BACKENDS: Mapping[str, tuple[str, ...]] = {"tensorflow": ("tf2onnx",), "tensorflow-cpu": ("tf2onnx",)}


def additions(flavor: str, names: Collection[str]) -> tuple[str, ...]:
    """What Headgate's programs need beside the logged packages `names`, as sorted requirements: what they stand on, and
    what converts the flavor. Names count, too: Keras may run on torch."""
    by_package = {**{found.package: found.converters for found in FLAVORS.values()}, **_BACKENDS}
    by_name = [converter for name in names for converter in by_package.get(name, ())]
    return tuple(sorted({*_PROGRAMS, *FLAVORS[flavor].converters, *by_name}))


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

"""MLflow's flavors: which module of this package loads, asks and converts the models of each.

A new flavor is one file with `load`, one line in FLAVORS, its formats in `scan_formats.py` and its imports in
`allowed.py`. Heavy packages are imported inside functions alone: a model's environment has those of its own flavor.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:  # These read MLmodel by the table below.
    from ..hurt import Place
    from ..mlmodel import Card
    from ..rows import Rows
    from ..tensors import Array, Signature


@dataclass(frozen=True)
class Flavor:
    """Where a flavor's model is: its `module` here, MLmodel's word (`key`) for its file, or for a folder that holds one
    of `files`."""

    module: str
    key: str
    files: tuple[str, ...] = ()


FLAVORS: Final[Mapping[str, Flavor]] = {
    "sklearn": Flavor("sklearn", "pickled_model"),
    "xgboost": Flavor("xgboost", "data"),
    "lightgbm": Flavor("lightgbm", "data"),
    "catboost": Flavor("catboost", "data"),
    "pytorch": Flavor("pytorch", "model_data", ("model.pt2", "model.pth")),
    "keras": Flavor("keras", "data", ("model.keras",)),
    "tensorflow": Flavor("keras", "data", ("model.keras",)),
    "onnx": Flavor("", "data"),  # ONNX already: nothing to load or to convert
}
"""By MLflow's name; of a model with several, the first one here counts."""


class Rung(Protocol):
    """One way to convert: its name and what it says of itself in reports."""

    @property
    def name(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Way:
    """A rung that is no more than a name with options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Model(Protocol):
    """A loaded model. `title` says what it is, `rungs` in which order conversions are tried."""

    title: str
    warnings: list[str]
    rungs: Sequence[Rung]

    def predict(self, rows: "Rows") -> "list[Array]":
        """Regression: [values [n, k]]. Classification: [labels [n]] and, where it has them, probabilities [n, k].

        Raises:
            Refused: the model fails on the rows.
        """

    def thresholds(self) -> "Sequence[tuple[Place, float]]":
        """Columns and values where the model branches on them, as far as that can be told: rows beside them hurt."""

    def convert(self, rung: Any, name: str) -> bytes:
        """The model as ONNX with the signature's columns as inputs; the same arguments give the same bytes.

        Raises whatever stands in the way of converting it so.
        """


def load(card: "Card", signature: "Signature") -> Model:
    """The model in its own format.

    Raises:
        Refused: it cannot be loaded here, or its flavor can be loaded but not a model of this kind.
    """
    module = importlib.import_module(f".{FLAVORS[card.flavor].module}", __package__)
    loaded: Model = module.load(card, signature)
    return loaded

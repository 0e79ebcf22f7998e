"""Keras 3: models that MLflow stored as `.keras`, by its flavors `keras` and `tensorflow`; converted by Keras' export.

A model file serves any of Keras' backends: the one it was trained with is taken where it is installed, else another.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from ..frames import matrix
from ..hurt import Place
from ..mlmodel import Card
from ..refusal import Refused
from ..rows import Rows
from ..tensors import Array, Signature
from . import Way
from .common import IR_VERSION, asking, input_name, loading, rename_input, rename_output, values, with_columns

_BACKENDS = ("tensorflow", "torch", "jax")


def load(card: Card, signature: Signature) -> "Network":
    """The model, not compiled.

    Raises:
        Refused: it cannot be loaded here, or has layers of its own code.
    """
    kept: list[str] = []
    backend = _backend(card)
    os.environ["KERAS_BACKEND"] = backend
    with loading(card, kept):
        import keras

        network = keras.saving.load_model(card.file, compile=False, safe_mode=True)
        return Network(network, signature, kept, backend)


class Network:
    """A loaded model of Keras."""

    rungs: Sequence[Way] = (Way("export", {"exporter": "keras"}),)

    def __init__(self, network: Any, signature: Signature, warnings: list[str], backend: str) -> None:
        self._network, self._signature, self.warnings = network, signature, warnings
        self.title = f"Keras on {backend}"

    def predict(self, rows: Rows) -> list[Array]:
        """As `flavors.Model` says; numbers alone."""
        with asking():
            answer = self._network.predict(matrix(rows, self._signature), verbose=0)
            if not isinstance(answer, np.ndarray):
                reason = f"The model answers with a {type(answer).__name__}, not with one array."
                raise Refused("unsupported-estimator", reason, "Log a model with one output.")
            return [values(answer, rows.count)]

    def thresholds(self) -> Sequence[tuple[Place, float]]:
        """A network does not branch."""
        return []

    def convert(self, _rung: Way, name: str) -> bytes:
        """Keras' export behind the signature's columns."""
        import keras

        spec = keras.InputSpec(shape=self._network.inputs[0].shape, dtype="float32", name="input")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            self._network.export(file, format="onnx", input_signature=[spec], verbose=False)
            model = onnx.load(file)
        rename_input(model.graph, input_name(self._signature))
        rename_output(model.graph, 0, "output")
        model.graph.name, model.ir_version = name, IR_VERSION
        return with_columns(model, self._signature, "float")


def _backend(card: Card) -> str:
    """The backend to load the model with.

    Raises:
        Refused: none is installed.
    """
    wanted = card.settings.get("keras_backend", "tensorflow")
    ordered = sorted(_BACKENDS, key=lambda backend: backend != wanted)
    found = next((backend for backend in ordered if importlib.util.find_spec(backend)), None)
    if found is None or importlib.util.find_spec("keras") is None:
        reason = f"The {card.flavor} model needs Keras and one of {', '.join(_BACKENDS)}, which the sandbox lacks."
        raise Refused("cannot-load", reason, "Let its requirements name keras and its backend, or log it as ONNX.")
    return found

"""What the flavors share: refusals, answers as arrays, and graphs that take columns."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from ..mlmodel import Card
from ..refusal import Refused
from ..surgery import GATHERED, rename_uses, restore_inputs
from ..tensors import Array, Column, Matrix, Signature

OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8
"""Old enough for every runtime that serves, new enough for trees in 64 bits."""


@contextmanager
def loading(card: Card, kept: list[str]) -> Iterator[None]:
    """Load a model within: errors become refusals, and the first words of what is warned of go to `kept`.

    Raises:
        Refused: a package is missing, or the model is broken.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (MemoryError, Refused):
            raise
        except ModuleNotFoundError as error:
            reason = f"The model needs the Python package {error.name!a}, which the sandbox does not have."
            remedy = "Log it with its requirements, without code of its own, or log it as ONNX."
            raise Refused("cannot-load", reason, remedy) from error
        except Exception as error:
            version = card.trained_with or "of an unknown version"
            remedy = f"It was trained with {card.flavor} {version}; log it again."
            raise Refused("cannot-load", f"The model cannot be loaded: {said(error)}", remedy) from error
    kept += [(str(warning.message).splitlines() or [""])[0][:300] for warning in caught[:5]]


@contextmanager
def asking() -> Iterator[None]:
    """Ask a model within.

    Raises:
        Refused: it fails.
    """
    try:
        yield
    except (MemoryError, Refused):
        raise
    except Exception as error:
        remedy = "Load the logged model where it was trained and predict with rows of its signature."
        raise Refused("cannot-predict", f"The model fails on the rows: {said(error)}", remedy) from error


def answers(model: Any, frame: Any, rows: int, classifies: bool) -> list[Array]:
    """What a model with scikit-learn's methods says of a frame, as `flavors.Model` wants it."""
    first = model.predict(frame)
    if not classifies:
        return [values(first, rows)]
    return [labels(first, rows), values(model.predict_proba(frame), rows)]


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def values(answer: object, rows: int) -> Array:
    """Numbers as [rows, k] in 64 bits; whole numbers and truth values, which only classes are, stay whole."""
    array = np.asarray(answer)
    if array.dtype.kind in "biu":
        return array.astype(np.int64).reshape(rows, -1)
    return array.astype(np.float64).reshape(rows, -1)


def labels(answer: object, rows: int) -> Array:
    """Class labels as ONNX gives them: text or whole numbers, [rows], or [rows, k] of a model with several outputs."""
    array = np.asarray(answer)
    array = array.reshape(rows) if array.size == rows else array
    if array.dtype.kind in "OUS":
        return np.array([str(value) for value in array.reshape(-1).tolist()], dtype=object).reshape(array.shape)
    return array.astype(np.int64)


def input_name(signature: Signature) -> str:
    """What a graph's one input must be called for `with_columns`."""
    return signature.name if isinstance(signature, Matrix) else GATHERED


def input_shape(signature: Signature) -> list[int | None]:
    """The shape of that input; None is the batch."""
    return [None, *signature.shape] if isinstance(signature, Matrix) else [None, len(signature)]


def rename_input(graph: onnx.GraphProto, wanted: str) -> None:
    """Give the graph's one input the name that `with_columns` looks for."""
    rename_uses(graph, graph.input[0].name, wanted)
    graph.input[0].name = wanted


def rename_output(graph: onnx.GraphProto, at: int, wanted: str) -> None:
    """Give one of the graph's outputs another name, for people: some exporters number theirs."""
    old = graph.output[at].name
    if any(wanted in (*node.input, *node.output) for node in graph.node):
        return
    for node in graph.node:
        node.output[:] = [wanted if name == old else name for name in node.output]
    rename_uses(graph, old, wanted)
    graph.output[at].name = wanted


def with_columns(model: onnx.ModelProto, signature: Signature, arithmetic: str) -> bytes:
    """The model with the signature's columns in place of its one input, which takes `arithmetic` (a word of KINDS).

    Raises:
        ValueError: a column is text, which is no number.
    """
    columns = [signature.as_column()] if isinstance(signature, Matrix) else list(signature)
    refuse_text(columns)
    restore_inputs(model.graph, columns, arithmetic)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def refuse_text(columns: Sequence[Column]) -> None:
    """Raise ValueError where a column is text."""
    texts = [column.name for column in columns if column.type == "string"]
    if texts:
        raise ValueError(f"the columns {', '.join(map(ascii, texts[:5]))} are text, and only numbers are converted")

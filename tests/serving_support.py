"""A tiny model for tests of serving: strings, floats and integers in, a label and probabilities out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.packaging import render_config, write_repository

ROOT = Path(__file__).resolve().parents[1]
TRITON = ROOT / ".triton"
BACKEND = ROOT / "image_templates" / "onnxruntime_backend" / "model.py"

MODEL = "tiny-model"
INPUTS = [
    {"name": "room", "datatype": "BYTES", "shape": [-1, 1]},
    {"name": "price", "datatype": "FP32", "shape": [-1, 1]},
    {"name": "nights", "datatype": "INT64", "shape": [-1, 1]},
]
OUTPUTS = [
    {"name": "label", "datatype": "BYTES", "shape": [-1]},
    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
]


@dataclass(frozen=True)
class TinyModel:
    """The trained pipeline, its ONNX file and the rows it was trained on."""

    native: Pipeline
    onnx: Path
    frame: pd.DataFrame

    def body(self, rows: int) -> dict[str, Any]:
        """A V2 request with the first `rows` rows."""
        columns = {name: self.frame[name].head(rows).tolist() for name in self.frame.columns}
        return {"inputs": [{**t, "shape": [rows, 1], "data": columns[str(t["name"])]} for t in INPUTS]}

    def probabilities(self, rows: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """What scikit-learn says of those rows: [rows, 2]."""
        answer: np.ndarray[Any, np.dtype[np.float64]] = self.native.predict_proba(self.frame.head(rows))
        return answer

    def labels(self, rows: int) -> list[str]:
        """What scikit-learn says of those rows."""
        return [str(label) for label in self.native.predict(self.frame.head(rows))]

    def repository(self, folder: Path, instance: Literal["cpu", "gpu"] = "cpu", count: int = 1) -> Path:
        """A model repository of it."""
        config = render_config(MODEL, INPUTS, OUTPUTS, instance, count)
        return write_repository(folder, MODEL, self.onnx, config)


def train_tiny_model(folder: Path) -> TinyModel:
    """Train on made-up rows and convert; `folder` receives the ONNX file."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "room": random.choice(["entire", "größe", "shared"], 300),
            "price": random.normal(100, 30, 300).astype(np.float32),
            "nights": random.integers(1, 30, 300),
        }
    )
    label = np.where(frame["price"] + 3 * frame["nights"] + 20 * (frame["room"] == "entire") > 150, "teuer", "günstig")
    columns = make_column_transformer((OneHotEncoder(), ["room"]), (StandardScaler(), ["price", "nights"]))
    native = make_pipeline(columns, LogisticRegression()).fit(frame, label)
    types = [
        ("room", StringTensorType([None, 1])),
        ("price", FloatTensorType([None, 1])),
        ("nights", Int64TensorType([None, 1])),
    ]
    onnx = folder / "tiny.onnx"
    onnx.write_bytes(to_onnx(native, initial_types=types, options={id(native): {"zipmap": False}}).SerializeToString())
    return TinyModel(native, onnx, frame)


def output(answer: Mapping[str, Any], name: str) -> Any:
    """The data of one output of a V2 answer, in its shape."""
    found = next(each for each in answer["outputs"] if each["name"] == name)
    return np.array(found["data"]).reshape(found["shape"])

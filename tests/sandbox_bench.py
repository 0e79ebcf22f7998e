"""A bench for the sandbox's programs: models written as MLflow does, converted in the process of the test."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from workers.sandbox import convert, score

ROWS = 3000
MLFLOW_TYPES = {"float32": "float", "float64": "double", "int64": "long", "int32": "integer", "bool": "boolean"}


def listings() -> pd.DataFrame:
    """Rows with a text, a double and a whole number, and a price that follows from them."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "city": rng.choice(["Ulm", "Bonn", "Köln"], ROWS),
            # Far from zero and close together: where 32 bits are too few, the next branch of a tree is near.
            "area": rng.normal(1000, 5, ROWS).round(3),
            "income": rng.integers(0, 10**6, ROWS),
            "price": rng.normal(0, 1, ROWS),
        }
    ).assign(price=lambda t: t.price + t.area / 5 - 200 + t.income / 2e5 + (t.city == "Ulm"))


def prepared(model: Any, numbers: list[str]) -> Pipeline:
    """The model behind one-hot text and scaled numbers."""
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(ColumnTransformer([("t", one_hot, ["city"]), ("n", StandardScaler(), numbers)]), model)


def forest() -> RandomForestRegressor:
    """A forest deep enough to notice a wrong last digit."""
    return RandomForestRegressor(8, max_depth=11, random_state=0)


class Bench:
    """Writes models as MLflow does and converts them in this process."""

    def __init__(self, folder: Path) -> None:
        self.inputs, self.output = folder / "in", folder / "out"
        (self.inputs / "model").mkdir(parents=True)
        self.output.mkdir()

    def model(self, estimator: Any, features: pd.DataFrame | None, **extra: Any) -> None:
        (self.inputs / "model" / "model.skops").write_bytes(skops.io.dumps(estimator))
        flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "sklearn_version": "1"}
        document: dict[str, Any] = {"flavors": {"sklearn": flavor, "python_function": {}}, **extra}
        if features is not None:
            specs = [
                {"name": name, "type": MLFLOW_TYPES.get(str(features[name].dtype), "string"), "required": True}
                for name in features
            ]
            document["signature"] = {"inputs": json.dumps(specs)}
        (self.inputs / "model" / "MLmodel").write_text(yaml.safe_dump(document))

    def onnx_model(self, data: bytes, **extra: Any) -> None:
        (self.inputs / "model" / "model.onnx").write_bytes(data)
        document = {"flavors": {"onnx": {"data": "model.onnx"}}, **extra}
        (self.inputs / "model" / "MLmodel").write_text(yaml.safe_dump(document))

    def rows(self, table: pd.DataFrame) -> None:
        table.to_csv(self.inputs / "rows", index=False)

    def request(self, label: str | None = None, **options: Any) -> dict[str, Any]:
        rows = {"file": "rows", "label": label, "count": 2000, "seed": 5}
        return {"rows": rows, "rtol": 1e-4, "atol": 1e-5, "max_wrong_rows": 0, **options}

    def convert(self, label: str | None = None, **options: Any) -> Mapping[str, Any]:
        return convert.run(self.request(label, **options), self.inputs, self.output)

    def score(self, label: str | None = None, texts: Sequence[str] = (), **options: Any) -> Mapping[str, Any]:
        """Measure what was converted last."""
        for name, left in (("onnx", "model.onnx"), ("served", "rows.json")):
            (self.inputs / name).write_bytes((self.output / left).read_bytes())
        nothing: dict[str, Any] = {"check": True, "batches": [], "slices": [], "nudges": []}
        rows = {**self.request(label)["rows"], "texts": list(texts)}
        return score.run({**nothing, "rows": rows, **options}, self.inputs, self.output)

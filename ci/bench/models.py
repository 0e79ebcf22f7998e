"""The models that are measured: the Airbnb example's own, trained here, written by MLflow, converted in the sandbox."""

import functools
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from app.adapters.bwrap import BwrapSandbox
from app.ports import SandboxJob
from examples.airbnb import data
from examples.airbnb.models import Kind, build
from workers.steps.rows import SEED

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "workers" / "sandbox"
REAL_ROWS = ROOT.parent / "shared" / "data" / "AB_NYC_2019.csv.gz"
TIMEOUT = timedelta(minutes=2)


@dataclass(frozen=True)
class Converted:
    """What the sandbox made of a model: its ONNX file and the description of its tensors."""

    onnx: Path
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class Models:
    """Trains, saves and converts each kind at most once. Files lie below `folder`."""

    def __init__(self, folder: Path, source: Path | None) -> None:
        self._folder = folder
        self.rows_from = "synthetic listings" if source is None else "AB_NYC_2019"
        self.table = data.clean(data.load(source))
        self.holdout = folder / "holdout.csv"
        data.split(self.table)[1].to_csv(self.holdout, index=False)
        self.saved = functools.cache(self._save)
        self.converted = functools.cache(self._convert)

    def judged(self, count: int) -> pd.DataFrame:
        """The first rows of the holdout, features only."""
        return data.split(self.table)[1][data.FEATURES].head(count)

    def inputs(self, kind: Kind) -> Mapping[str, Path]:
        """What the programs of the sandbox read."""
        return {"model": self.saved(kind), "rows": self.holdout}

    def _save(self, kind: Kind) -> Path:
        # MLflow's client would otherwise report its calls over the internet.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        with warnings.catch_warnings():
            # MLflow 3.17 uses what pandas 4 will change, and says so at each save.
            warnings.simplefilter("ignore")
            import mlflow.sklearn
            from mlflow.models import infer_signature

            from examples.airbnb.train import TRUSTED_TYPES

            train = data.split(self.table)[0]
            example = train[data.FEATURES].head(5).reset_index(drop=True)
            pipeline = build(kind).fit(train[data.FEATURES], train[data.LABEL])
            mlflow.sklearn.save_model(
                pipeline,
                self._folder / kind,
                signature=infer_signature(example, pipeline.predict(example)),
                input_example=example,
                skops_trusted_types=TRUSTED_TYPES,
                pip_requirements=["scikit-learn", "skops"],
            )
        return self._folder / kind

    def _convert(self, kind: Kind) -> Converted:
        output = self._folder / f"{kind}-converted"
        output.mkdir()
        job = SandboxJob("convert", self.inputs(kind), convert_request(), output, TIMEOUT)
        result = BwrapSandbox(PROGRAMS).run(job)
        return Converted(output / "model.onnx", list(result["inputs"]), list(result["outputs"]))


def convert_request() -> dict[str, Any]:
    """What the step CONVERT asks for under the example's policy: 5,000 judging rows, no row may differ."""
    rows = {"file": "rows", "label": data.LABEL, "count": 5000, "seed": SEED}
    return {"rows": rows, "rtol": 1e-4, "atol": 1e-5, "max_wrong_rows": 0}


def split_body(rows: pd.DataFrame) -> bytes:
    """The rows as MLflow's scoring server takes them."""
    return json.dumps({"dataframe_split": rows.to_dict(orient="split", index=False)}).encode()

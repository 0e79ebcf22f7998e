"""Train one version of the Airbnb price model and register it in MLflow, as a data scientist would.

    python -m examples.airbnb.train --data AB_NYC_2019.csv.gz --mlflow-uri http://127.0.0.1:5000 --kind forest

Without --data it trains on synthetic rows of the same schema. It prints one line of JSON: model, version, metrics.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.models import infer_signature
from sklearn.pipeline import Pipeline

from examples.airbnb import data
from examples.airbnb.models import KINDS, Kind, build

# skops loads no type that nobody named; these are the private parts of scikit-learn's trees.
TRUSTED_TYPES = ["sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
SEED = 7


@dataclass(frozen=True)
class Trained:
    """A registered version and its metrics on the holdout, in natural logarithms of the price."""

    model: str
    version: str
    run_id: str
    kind: str
    metrics: dict[str, float]


def train(table: pd.DataFrame, kind: Kind, mlflow_uri: str, model: str, source: str) -> Trained:
    """Fit the pipeline on the training part of `table`, log it with everything that Headgate reads, register it.

    `table` is what `data.clean` returns, `source` says where it came from.
    """
    train_rows, holdout = data.split(table)
    target = train_rows[data.LABEL]
    if kind == "shuffled":
        target = pd.Series(np.random.default_rng(SEED).permutation(target), index=target.index)
    pipeline = build(kind).fit(train_rows[data.FEATURES], target)
    metrics = measure(pipeline, holdout)

    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment(model)
    example = train_rows[data.FEATURES].head(5).reset_index(drop=True)
    with mlflow.start_run(run_name=kind) as run:
        dataset = from_pandas(train_rows, name="airbnb-listings", targets=data.LABEL)
        mlflow.log_input(dataset, context="training")
        mlflow.log_params({"kind": kind, "data": source, "rows": len(train_rows), "seed": SEED})
        mlflow.log_metrics(metrics)
        info = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            registered_model_name=model,
            signature=infer_signature(example, pipeline.predict(example)),
            input_example=example,
            skops_trusted_types=TRUSTED_TYPES,
            # Given by hand, because finding them out loads the model in another process, which takes seconds.
            pip_requirements=[f"scikit-learn=={installed('scikit-learn')}", f"skops=={installed('skops')}"],
        )
    return Trained(model, str(info.registered_model_version), run.info.run_id, kind, metrics)


def measure(pipeline: Pipeline, holdout: pd.DataFrame) -> dict[str, float]:
    """rmse, mae and r2 on the holdout; a row that the pipeline cannot take is an error."""
    actual = holdout[data.LABEL].to_numpy()
    error = pipeline.predict(holdout[data.FEATURES]) - actual
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": float(1 - np.sum(error**2) / np.sum((actual - actual.mean()) ** 2)),
    }


def write_holdout(table: pd.DataFrame, file: Path) -> None:
    """The holdout as a CSV file with the label: the judging rows for a policy's data.uri."""
    data.split(table)[1].to_csv(file, index=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="AB_NYC_2019 CSV, plain or .gz; without it: synthetic rows")
    parser.add_argument("--mlflow-uri", required=True, help="MLflow's tracking server")
    parser.add_argument("--model", default="airbnb-price", help="the registered model (default: %(default)s)")
    parser.add_argument("--kind", choices=KINDS, required=True, help="which pipeline")
    parser.add_argument("--holdout", type=Path, help="write the judging rows to this CSV file")
    given = parser.parse_args(arguments)

    table = data.clean(data.load(given.data))
    if given.holdout:
        write_holdout(table, given.holdout)
    trained = train(table, given.kind, given.mlflow_uri, given.model, str(given.data or "synthetic"))
    sys.stdout.write(json.dumps(asdict(trained)) + "\n")


if __name__ == "__main__":
    main()

"""Training through the command line: what lands in MLflow is what Headgate reads."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from examples.airbnb import data, train
from tests.services import mlflow_server

# MLflow 3.17 uses what pandas 4 will change.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


def test_a_version_is_registered_with_signature_example_and_dataset(
    mlflow_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listings, rows = tmp_path / "listings.csv.gz", tmp_path / "rows.csv"
    data.synthetic(2000, seed=1).to_csv(listings, index=False)

    train.main(["--data", str(listings), "--mlflow-uri", mlflow_uri, "--kind", "forest", "--holdout", str(rows)])

    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    client = MlflowClient(mlflow_uri)
    version = client.get_model_version("airbnb-price", said["version"])
    run = client.get_run(said["run_id"])
    assert version.run_id == said["run_id"]
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.name == "airbnb-listings"
    assert run.data.metrics["rmse"] == pytest.approx(said["metrics"]["rmse"])
    holdout = pd.read_csv(rows)
    assert list(holdout.columns) == [*data.FEATURES, data.LABEL]
    assert len(holdout) == 400
    stored = Path(client.download_artifacts(said["run_id"], "model", str(tmp_path)))
    assert {"MLmodel", "model.skops", "input_example.json"} <= {file.name for file in stored.iterdir()}

"""Datasets that MLflow's runs have logged as their inputs: MLflow keeps where they lie, not what is in them."""

import json
import time
from pathlib import Path
from typing import Any

from app.adapters.mlflow_registry.artifacts import Artifacts
from app.adapters.mlflow_registry.rest import DOES_NOT_EXIST, INVALID, ApiError, Rest, Row
from app.adapters.mlflow_registry.views import rows, text
from app.domain.errors import Fault
from app.ports import Dataset

MAX_BYTES = 2 << 30
_REMEDY = (
    "Log it with mlflow.log_input, with a source in S3 or with the file beside it: mlflow.log_artifact under the "
    "dataset's name. Or name the rows themselves in data.uri."
)


class Datasets:
    """Finds logged datasets, and copies those that MLflow itself serves."""

    def __init__(self, rest: Rest, artifacts: Artifacts, seconds: float) -> None:
        self._rest, self._artifacts, self._seconds = rest, artifacts, seconds

    def find(self, run_id: str, name: str) -> Dataset:
        """The one dataset of that name that the run has logged.

        Raises:
            Fault: there is no such run, no such dataset, several that differ, or its file cannot be read.
        """
        try:
            run: Row = self._rest.get("runs/get", {"run_id": run_id}).get("run", {})
        except ApiError as error:
            if error.code not in (DOES_NOT_EXIST, INVALID):
                raise
            raise Fault(f"MLflow has no run {run_id}.", "Correct data.uri of the policy.") from error
        logged = [row["dataset"] for row in rows(run.get("inputs", {}), "dataset_inputs") if isinstance(row, dict)]
        found = {text(row, "digest"): row for row in logged if row.get("name") == name}
        if len(found) != 1:
            raise Fault(f"The run {run_id} has logged {len(found)} different datasets named {name!r}.", _REMEDY)
        ((digest, row),) = found.items()
        return Dataset(name, digest, self._source(run_id, row))

    def _source(self, run_id: str, row: Row) -> str:
        """The object that the dataset came from, else the run's artifact of the dataset's name.

        A person who trains decides what is logged: any other source would be read on our machine or in our network.
        """
        try:
            source: Any = json.loads(text(row, "source"))
        except ValueError:
            source = None
        uri = str(source.get("uri") or "") if isinstance(source, dict) else ""
        if not uri.startswith("s3://"):
            uri = self._artifacts.of_run(f"{run_id}/{text(row, 'name')}")
        if not uri.startswith(("s3://", "mlflow-artifacts:")):
            raise Fault(f"Headgate does not read artifacts from {uri.partition(':')[0]!r}.", _REMEDY)
        return uri

    def copy(self, uri: str, into: Path) -> None:
        """Copy one file that MLflow serves to the new file `into`.

        Raises:
            Fault: it is not there, or MLflow does not serve it.
        """
        path = self._artifacts.served_path(uri)
        if path is None:
            raise Fault(f"MLflow does not serve {uri}.", _REMEDY)
        try:
            with into.open("xb") as file:
                for chunk in self._rest.read_artifact(path, MAX_BYTES, time.monotonic() + self._seconds):
                    file.write(chunk)
        except ApiError as error:
            raise Fault(f"MLflow has no {uri}.", _REMEDY) from error

"""The port Registry (app/ports.py) on an MLflow server."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from app.adapters.mlflow_registry import webhooks
from app.adapters.mlflow_registry.artifacts import Artifacts
from app.adapters.mlflow_registry.datasets import Datasets
from app.adapters.mlflow_registry.landing import Limits
from app.adapters.mlflow_registry.rest import DOES_NOT_EXIST, INVALID, ApiError, Rest, Row
from app.adapters.mlflow_registry.views import Views, tags, text
from app.domain.registry import NO_STAGE, ModelView
from app.ports import Dataset, VersionInfo, Written

_STAGES_WITH_ARCHIVE = frozenset({"Staging", "Production"})


class MlflowRegistry:
    """MLflow's model registry.

    `uri` is the server's address, `timeout_s` bounds every wait for it; `username` and `password`, or `token`, are what
    MLflow's clients take from MLFLOW_TRACKING_USERNAME, _PASSWORD and _TOKEN. A version's artifacts may take
    `max_bytes` and its copy `download_timeout_s`. It makes no connection before the first call.
    """

    def __init__(
        self,
        uri: str,
        timeout_s: float = 30.0,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        models_page: int = 1_000,
        versions_page: int = 10_000,
        max_bytes: int = 8 * 1024**3,
        download_timeout_s: float = 1_800.0,
    ) -> None:
        self._rest = Rest(uri, timeout_s, username, password, token)
        self._views = Views(self._rest, models_page, versions_page)
        self._artifacts = Artifacts(self._rest, Limits(max_bytes, download_timeout_s))
        self._datasets = Datasets(self._rest, self._artifacts, download_timeout_s)

    def close(self) -> None:
        """Close the connections to MLflow."""
        self._rest.close()

    def read_model(self, name: str) -> ModelView | None:
        """One model with the stages and tags of all its versions; None where it does not exist or is a prompt."""
        return self._views.read(name)

    def snapshot(self) -> Iterator[ModelView]:
        """All models, page by page; raises Transient for a broken page. Only the end of it proves a deletion."""
        return self._views.all()

    def version(self, model: str, version: str) -> VersionInfo | None:
        """One version, or None."""
        row = self._version_row(model, version)
        if row is None:
            return None
        run_id = row.get("run_id") or None
        return VersionInfo(
            model=model,
            version=version,
            run_id=run_id,
            source=row.get("source", ""),
            # Whoever registered a version need not have trained it.
            user=(self._user_of_run(run_id) if run_id else None) or row.get("user_id"),
            ready=row.get("status", "READY") == "READY",
        )

    def download(self, model: str, version: str, into: Path) -> None:
        """Copy the version's artifacts into the empty folder `into`. Raises Rejected where they are missing."""
        self._artifacts.download(model, version, into)

    def dataset(self, run_id: str, name: str) -> Dataset:
        """The dataset of that name that a run has logged as its input. Raises Fault where there is no such one."""
        return self._datasets.find(run_id, name)

    def copy_dataset(self, uri: str, into: Path) -> None:
        """Copy a dataset's file that MLflow serves to the new file `into`. Raises Fault where it is missing."""
        self._datasets.copy(uri, into)

    def set_model_tag(self, model: str, key: str, value: str) -> None:
        """Set a tag of the registered model; one that is gone is ignored."""
        self._send_if_there("POST", "registered-models/set-tag", name=model, key=key, value=value)

    def set_version_tag(self, model: str, version: str, key: str, value: str) -> None:
        """Set a tag; a version that is gone is ignored."""
        self._send_if_there("POST", "model-versions/set-tag", name=model, version=version, key=key, value=value)

    def delete_version_tag(self, model: str, version: str, key: str, value: str) -> Written:
        """Delete a tag if it still holds `value`; MLflow offers no way to do both at once."""
        row = self._version_row(model, version)
        found = tags(row).get(key) if row is not None else None
        if found != value:
            return Written.ALREADY if found is None else Written.NOT
        return self._send_if_there("DELETE", "model-versions/delete-tag", name=model, version=version, key=key)

    def set_alias(self, model: str, alias: str, version: str) -> Written:
        """Point the alias to the version; NOT where that is gone."""
        return self._send_if_there("POST", "registered-models/alias", name=model, alias=alias, version=version)

    def delete_alias(self, model: str, alias: str, version: str) -> Written:
        """Delete the alias if it still points to `version`; MLflow offers no way to do both at once.

        Whoever moves the alias between the two calls loses it: so the look is the quickest that MLflow has.
        """
        row = self._read("registered-models/alias", "model_version", name=model, alias=alias)
        if row is None or row.get("version") != version:
            return Written.ALREADY if row is None else Written.NOT
        return self._send_if_there("DELETE", "registered-models/alias", name=model, alias=alias)

    def set_stage(
        self, model: str, version: str, stage: str, archive: bool, only_from: Collection[str] | None = None
    ) -> Written:
        """Move the version to a legacy stage, from `only_from` alone where that is given.

        `archive` moves the versions that were in Staging or Production to Archived; other stages have no such rule.
        """
        row = self._version_row(model, version)
        stands = (row.get("current_stage") or NO_STAGE) if row is not None else None
        if stands is None or stands == stage or (only_from is not None and stands not in only_from):
            return Written.ALREADY if stands == stage else Written.NOT
        archive = archive and stage in _STAGES_WITH_ARCHIVE
        fields = {"name": model, "version": version, "stage": stage, "archive_existing_versions": archive}
        return self._send_if_there("POST", "model-versions/transition-stage", **fields)

    def ensure_webhook(self, url: str, secret: str) -> bool:
        """See that exactly one active webhook of ours points to `url` with this secret; True if one was made."""
        return webhooks.ensure_webhook(self._rest, url, secret)

    def _version_row(self, model: str, version: str) -> Row | None:
        return self._read("model-versions/get", "model_version", name=model, version=version)

    def _read(self, path: str, key: str, **params: str) -> Row | None:
        try:
            row: Row = self._rest.get(path, params).get(key, {})
        except ApiError as error:
            # INVALID is MLflow's answer to a name or number that nothing can have.
            if error.code in (DOES_NOT_EXIST, INVALID):
                return None
            raise
        text(row, "name")
        return row

    def _send_if_there(self, method: str, path: str, **body: Any) -> Written:
        try:
            self._rest.send(method, path, body)
        except ApiError as error:
            if error.code != DOES_NOT_EXIST:
                raise
            return Written.NOT
        return Written.DONE

    def _user_of_run(self, run_id: str) -> str | None:
        try:
            run = self._rest.get("runs/get", {"run_id": run_id}).get("run", {})
        except ApiError as error:
            if error.code == DOES_NOT_EXIST:
                return None
            raise
        return tags(run.get("data", {})).get("mlflow.user") or run.get("info", {}).get("user_id") or None

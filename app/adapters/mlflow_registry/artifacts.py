"""Copies a model version's artifacts: from MLflow's own storage over REST, from a bucket with MLflow's client."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from app.adapters.mlflow_registry.landing import MAX_PLACES, Landing, Limits
from app.adapters.mlflow_registry.rest import DOES_NOT_EXIST, INVALID, ApiError, Rest, Row
from app.adapters.mlflow_registry.views import rows, text
from app.domain import names
from app.domain.errors import Fault, Rejected, Transient

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_BUCKETS = frozenset({"s3", "gs", "wasbs", "abfss"})
_REGISTER_AGAIN = "Log the model and register it again as a new version."


class Artifacts:
    """Finds and copies artifacts.

    MLflow's client would copy them too, but importing it costs 4 s and 150 MiB in every worker, it takes its login and
    timeouts from the process's environment alone, and for `runs:/` it answers a broken connection like missing files.
    So it is used only for what MLflow does not serve itself.
    """

    def __init__(self, rest: Rest, limits: Limits) -> None:
        self._rest = rest
        self._limits = limits

    def download(self, model: str, version: str, into: Path) -> None:
        """Copy the artifacts into the empty folder `into`. Raises Rejected where there is nothing to copy."""
        source = self._locate(f"models:/{model}/{version}", model, version)
        into.mkdir(parents=True, exist_ok=True)
        try:
            if source.startswith("mlflow-artifacts:"):
                self._copy_served(source, into)
            else:
                _copy_from_bucket(source, into, self._limits)
        except ApiError as error:
            raise Rejected(
                f"The artifacts of {model} version {version} cannot be read. {error.reason}", _REGISTER_AGAIN
            ) from error
        if not any(into.iterdir()):
            raise Rejected(f"The artifacts of {model} version {version} are missing.", _REGISTER_AGAIN)

    def _locate(self, uri: str, model: str, version: str) -> str:
        """Follow `models:/` and `runs:/` until a place where files lie, and refuse places that nobody vouches for."""
        # MLflow resolves most of these itself; a chain longer than this is a circle.
        for _ in range(5):
            try:
                scheme, path = uri.partition(":")[0], _path(uri)
                if scheme == "models":
                    uri = self._of_model(path)
                elif scheme == "runs":
                    uri = self.of_run(path)
                else:
                    return self._allowed(uri, scheme)
            except ApiError as error:
                if error.code not in (DOES_NOT_EXIST, INVALID):
                    raise
                raise Rejected(
                    f"What {model} version {version} was made from is gone. {error.reason}", _REGISTER_AGAIN
                ) from error
        raise Rejected(f"The source of {model} version {version} leads in a circle.", _REGISTER_AGAIN)

    def _of_model(self, path: str) -> str:
        name, separator, version = path.rpartition("/")
        if separator:
            answer = self._rest.get("model-versions/get-download-uri", {"name": name, "version": version})
            return text(answer, "artifact_uri")
        return text(self._logged_model(version), "artifact_uri")

    def _logged_model(self, model_id: str) -> Row:
        info: Row = self._rest.get(f"logged-models/{quote(model_id, safe='')}").get("model", {}).get("info", {})
        return info

    def served_path(self, uri: str) -> str | None:
        """Where MLflow itself serves the artifact, None where another one does."""
        ours = uri.startswith("mlflow-artifacts:") and _host(uri) in ("", _host(self._rest.address))
        return unquote(_path(uri)).strip("/") if ours else None

    def of_run(self, path: str) -> str:
        """The folder of a run's artifacts, or of the model that the run logged under that name (MLflow 3)."""
        run_id, _, folder = path.partition("/")
        run = self._rest.get("runs/get", {"run_id": run_id}).get("run", {})
        for output in rows(run.get("outputs", {}), "model_outputs"):
            model = self._logged_model(text(output, "model_id"))
            if model.get("name") == folder:
                return text(model, "artifact_uri")
        return f"{text(run.get('info', {}), 'artifact_uri')}/{folder}".rstrip("/")

    def _allowed(self, uri: str, scheme: str) -> str:
        """The source decides what this machine opens, and a user of MLflow decides the source."""
        host = _host(uri)
        if scheme == "mlflow-artifacts" and host in ("", _host(self._rest.address)):
            return uri
        if scheme in _BUCKETS and host:
            return uri
        place = f"{scheme}: addresses of {host or 'no host'}" if re.fullmatch(r"[\w+.-]+", scheme) else "local paths"
        raise Rejected(
            f"Headgate does not read artifacts from {place}.",
            "Let MLflow serve them (`mlflow server --serve-artifacts`) or keep them in a bucket, and register again.",
        )

    def _copy_served(self, source: str, into: Path) -> None:
        root, landing = unquote(_path(source)).strip("/"), Landing(into, self._limits)
        for path, entry in self._walk(root, (), landing):
            size = _listed_size(entry)
            with landing.file(path, size) as target, target.open("wb") as file:
                for chunk in self._rest.read_artifact("/".join((root, *path)), size, landing.deadline):
                    file.write(chunk)

    def _walk(self, root: str, folder: tuple[str, ...], landing: Landing) -> Iterator[tuple[tuple[str, ...], Row]]:
        landing.folder(folder)  # before it is asked for: a server may list folders without end
        for entry in self._rest.list_artifacts("/".join((root, *folder))):
            path = (*folder, text(entry, "path"))
            if entry.get("is_dir"):
                yield from self._walk(root, path, landing)
            else:
                yield path, entry


def _listed_size(entry: Row) -> int:
    size = entry.get("file_size", 0)
    if not isinstance(size, int) or size < 0:
        raise Transient("MLflow's listing of the artifacts holds no size.", "It is read again; see MLflow's log.")
    return size


def _copy_from_bucket(source: str, into: Path, limits: Limits) -> None:
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(source)
    except ImportError as error:
        remedy = "Install headgate's extra `s3`, or the client of your cloud, where the workers run."
        raise Fault(f"The client for {source.partition(':')[0]}: is not installed ({error.name}).", remedy) from error
    try:
        landing = Landing(into, limits)
        # All names are checked before anything comes. One more than may be is enough for the landing to refuse it.
        for path, size in list(itertools.islice(_listed(repository, (), landing), MAX_PLACES + 1)):
            with landing.file(path, size) as target:
                repository._download_file("/".join(path), str(target))  # type: ignore[no-untyped-call]  # typed in parts
    except MlflowException as error:
        if error.error_code == DOES_NOT_EXIST:
            raise Rejected("The bucket has no such artifacts.", _REGISTER_AGAIN) from error
        raise _bucket_away(source, error) from error
    except (Rejected, Transient):
        raise
    except Exception as error:  # every cloud's client has a tree of errors of its own
        raise _bucket_away(source, error) from error


def _listed(
    repository: "ArtifactRepository", folder: tuple[str, ...], landing: Landing
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path and size of every file: a bucket's keys are whatever somebody once wrote."""
    landing.folder(folder)
    for entry in repository.list_artifacts("/".join(folder) or None):
        path = tuple(entry.path.split("/"))
        if path[:-1] != folder:
            shown = names.shown(entry.path)
            raise Rejected(f"The model has an odd name: {shown} lies elsewhere.", "Rename it and register it again.")
        if entry.is_dir:
            yield from _listed(repository, path, landing)
        else:
            yield path, entry.file_size or 0


def _bucket_away(source: str, error: Exception) -> Transient:
    # What the cloud's client says may quote signed URLs, so that only the kind of its error is told.
    reason = f"Reading {source.partition(':')[0]}://{_host(source)} failed ({type(error).__name__})."
    return Transient(reason, "See that the workers have a login for it that may read.")


def _host(uri: str) -> str:
    """Host and port of a URI, without a login; empty where it names none."""
    rest = uri.partition(":")[2]
    return rest[2:].partition("/")[0].rpartition("@")[2] if rest.startswith("//") else ""


def _path(uri: str) -> str:
    """The path of a URI without the slashes before it; names may hold what a URL would read as a query."""
    rest = uri.partition(":")[2]
    return rest[2:].partition("/")[2] if rest.startswith("//") else rest.lstrip("/")

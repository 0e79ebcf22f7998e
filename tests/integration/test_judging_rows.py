"""Judging rows from the outside: as much of S3 as boto3 asks for, and a dataset that a real MLflow run has logged."""

import http.server
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from app.adapters.mlflow_registry import MlflowRegistry
from app.adapters.s3_buckets import S3Buckets
from app.domain.errors import Fault, Transient
from tests import services

# MLflow 3.17 uses what pandas 4 will change.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
ROWS = b"x,price\n1,1\n2,2\n"
SOURCES = {"holdout.csv": "https://rows.example/holdout.csv", "elsewhere.csv": "s3://rows/b.csv"}
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"


@contextmanager
def storage(answers: Mapping[str, tuple[int, bytes]]) -> Iterator[str]:
    """An S3 that gives these answers by path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path.partition("?")[0]]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output quiet."""

    with services.serving(Handler) as url:
        yield url


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_an_object_is_copied(login: None, tmp_path: Path) -> None:
    with storage({"/rows/a/holdout.csv": (200, ROWS)}) as url:
        S3Buckets(url).fetch("s3://rows/a/holdout.csv", tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == ROWS


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (404, "NoSuchKey", Fault, "is not there"),
        (404, "NoSuchBucket", Fault, "is not there"),
        (403, "AccessDenied", Fault, "may not read"),
        (500, "InternalError", Transient, "failed"),
    ],
)
def test_what_the_storage_refuses(
    login: None, tmp_path: Path, status: int, code: str, kind: type[Exception], words: str
) -> None:
    body = ERROR.format(code=code).encode()
    with storage({"/rows/a.csv": (status, body)}) as url, pytest.raises(kind, match=words):
        S3Buckets(url).fetch("s3://rows/a.csv", tmp_path / "rows")


def test_too_much_nobody_there_and_no_login(login: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with storage({"/rows/a.csv": (200, ROWS)}) as url:
        with pytest.raises(Fault, match="larger than 5 bytes"):
            S3Buckets(url, max_bytes=5).fetch("s3://rows/a.csv", tmp_path / "one")
        with pytest.raises(Transient, match="EndpointConnectionError"):
            S3Buckets(f"http://127.0.0.1:{services.free_port()}").fetch("s3://rows/a.csv", tmp_path / "two")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(Fault, match="no login"):
            S3Buckets(url).fetch("s3://rows/a.csv", tmp_path / "three")


def test_datasets_that_a_run_has_logged(tmp_path: Path) -> None:
    import mlflow
    from mlflow.data.pandas_dataset import from_pandas

    table = pd.DataFrame({"x": [1.0, 2.0], "price": [1.0, 2.0]})
    (tmp_path / "holdout.csv").write_bytes(ROWS)
    (tmp_path / "server").mkdir()
    with services.mlflow_server(tmp_path / "server") as uri:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("judging rows")  # what a test before this one chose is not on this server
        with mlflow.start_run() as run:
            mlflow.log_artifact(str(tmp_path / "holdout.csv"))
            for name, rows in (
                ("holdout.csv", table),
                ("elsewhere.csv", table),
                ("twice", table),
                ("twice", table.head(1)),
            ):
                mlflow.log_input(from_pandas(rows, source=SOURCES.get(name, "s3://rows/a.csv"), name=name), "eval")
        registry = MlflowRegistry(uri)
        run_id = run.info.run_id

        assert registry.dataset(run_id, "elsewhere.csv").uri == "s3://rows/b.csv"
        served = registry.dataset(run_id, "holdout.csv")
        registry.copy_dataset(served.uri, tmp_path / "copied")
        assert (tmp_path / "copied").read_bytes() == ROWS
        assert served.digest

        with pytest.raises(Fault, match="logged 2 different datasets named 'twice'"):
            registry.dataset(run_id, "twice")
        with pytest.raises(Fault, match="logged 0 different"):
            registry.dataset(run_id, "nothing")
        with pytest.raises(Fault, match="has no run"):
            registry.dataset("0" * 32, "holdout.csv")
        with pytest.raises(Fault, match="does not serve"):
            registry.copy_dataset("mlflow-artifacts://elsewhere.example/1/rows.csv", tmp_path / "none")
        with pytest.raises(Fault, match="has no mlflow-artifacts"):
            registry.copy_dataset(f"{served.uri}.gone", tmp_path / "gone")
        registry.close()

"""Tests of the registry adapter on servers that answer wrongly, or whose tables change between two pages."""

import http.server
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.adapters.mlflow_registry import MlflowRegistry, landing
from app.domain.errors import Fault, Rejected, Transient
from app.domain.registry import ModelView
from tests import services

Answer = tuple[int, Any]
Query = dict[str, str]


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers GET by a function of path and query; an answer that is no bytes is sent as JSON."""

    answer: Callable[[str, Query], Answer]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, content = self.answer(url.path.removeprefix("/api/2.0/mlflow/"), query)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (100 if status == 299 else 0)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""


class Case:
    """Makes registries on scripted servers and ends both."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], object]] = []

    def registry(self, answer: Callable[[str, Query], Answer], **options: Any) -> MlflowRegistry:
        serving = services.serving(type("Handler", (Scripted,), {"answer": staticmethod(answer)}))
        adapter = MlflowRegistry(serving.__enter__(), 5, **options)
        self._ends += [lambda: serving.__exit__(None, None, None), adapter.close]
        return adapter

    def end(self) -> None:
        for end in reversed(self._ends):
            end()


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    yield made
    made.end()


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>Sign in</html>"),
        (200, b"[]"),
        (200, b'{"registered_models": [{"name": "cut of'),
        (299, b'{"registered_models": []}'),  # 299: fewer bytes come than were announced
        (200, {"registered_models": {"name": "a"}, "model_versions": []}),
        (200, {"registered_models": [{"aliases": []}]}),
        (200, {"registered_models": [{"name": "a", "aliases": [{"alias": "x"}]}]}),
        (200, {"model_versions": [{"name": "a"}]}),
        (200, {"registered_models": [], "next_page_token": "again"}),
        (200, {"registered_models": [{"name": "a"}], "model_versions": [], "next_page_token": "again"}),
        (500, b""),
        (503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database is locked"}),
        (429, b""),
    ],
)
def test_a_broken_page_is_never_half_a_snapshot(case: Case, answer: Answer) -> None:
    with pytest.raises(Transient) as caught:
        list(case.registry(lambda path, query: answer).snapshot())
    assert caught.value.remedy


def test_pages_that_lead_back_end(case: Case) -> None:
    def answer(path: str, query: Query) -> Answer:
        token = {"": "one", "one": "two", "two": "one"}[query.get("page_token", "")]
        row = {"name": "a", "version": "1"}
        return 200, {"registered_models": [row], "model_versions": [row], "next_page_token": token}

    with pytest.raises(Transient, match="lead nowhere"):
        list(case.registry(answer).snapshot())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, b"You are not authenticated"), "HEADGATE_MLFLOW_USERNAME"),
        ((403, {"error_code": "PERMISSION_DENIED", "message": "no"}), "HEADGATE_MLFLOW_PASSWORD"),
        ((404, b"<html>not here</html>"), "HEADGATE_MLFLOW_URI"),
        ((302, b""), "HEADGATE_MLFLOW_URI"),
        ((400, {"error_code": "BAD_REQUEST", "message": "x" * 10_000}), "BAD_REQUEST|answered"),
    ],
)
def test_a_refusal_is_our_fault_and_short(case: Case, answer: Answer, words: str) -> None:
    with pytest.raises(Fault, match=words) as caught:
        case.registry(lambda path, query: answer).read_model("any")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("login", "options", "header"),
    [
        ("", {}, None),
        ("ada:secret@", {}, "Basic YWRhOnNlY3JldA=="),
        ("", {"username": "ada", "password": "secret"}, "Basic YWRhOnNlY3JldA=="),
        ("", {"token": "secret"}, "Bearer secret"),
    ],
)
def test_the_login_goes_along(login: str, options: dict[str, Any], header: str | None) -> None:
    sent = []

    class Noting(Scripted):
        def do_GET(self) -> None:
            sent.append(self.headers.get("Authorization"))
            self.answer = lambda path, query: (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
            super().do_GET()

    with services.serving(Noting) as url:
        adapter = MlflowRegistry(url.replace("://", f"://{login}"), 5, **options)
        assert adapter.read_model("any") is None
        adapter.close()
    assert sent == [header]


def test_what_mlflow_says_is_told_without_logins(case: Case) -> None:
    refusal = 400, {"error_code": "BAD_REQUEST", "message": "cannot reach\nhttp://ada:secret@host/x"}
    with pytest.raises(Fault, match=r"cannot reach http://host/x") as caught:
        case.registry(lambda path, query: refusal).read_model("any")
    assert "secret" not in str(caught.value)


class Table:
    """A registry whose rows can go away after any page, with MLflow's offsets as page tokens."""

    def __init__(self, versions: dict[str, dict[str, str]], after: dict[int, list[tuple[str, str]]]) -> None:
        self.versions = versions
        self.after = after
        self.pages = 0

    def answer(self, path: str, query: Query) -> Answer:
        if path == "registered-models/get":
            if query["name"] not in self.versions:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}
            return 200, {"registered_model": self.model(query["name"])}
        if path == "registered-models/search":
            return self.page("registered_models", [self.model(name) for name in sorted(self.versions)], query)
        wanted = query.get("filter", "")
        rows = [
            {"name": name, "version": version, "current_stage": stage}
            for name, versions in sorted(self.versions.items())
            for version, stage in sorted(versions.items())
            if not wanted or wanted == f"name = '{name}'"
        ]
        return self.page("model_versions", rows, query)

    def model(self, name: str) -> dict[str, Any]:
        return {"name": name, "latest_versions": [{"version": version} for version in sorted(self.versions[name])[-1:]]}

    def page(self, key: str, rows: list[dict[str, Any]], query: Query) -> Answer:
        start, size = int(query.get("page_token", 0)), int(query["max_results"])
        page: dict[str, Any] = {key: rows[start : start + size]}
        if len(rows) > start + size:
            page["next_page_token"] = str(start + size)
        if "filter" not in query:
            for name, version in self.after.get(self.pages, []):
                self.delete(name, version)
            self.pages += 1
        return 200, page

    def delete(self, name: str, version: str) -> None:
        del self.versions[name][version]
        if not self.versions[name]:
            del self.versions[name]

    def truth(self) -> list[ModelView]:
        return [ModelView(name, {}, dict(versions)) for name, versions in sorted(self.versions.items())]


@pytest.mark.parametrize("page", range(12))
@pytest.mark.parametrize("gone", [[("a", "1")], [("a", "1"), ("b", "1")], [("b", "1"), ("b", "2"), ("c", "1")]])
def test_a_deletion_between_two_pages_hides_nothing_else(case: Case, page: int, gone: list[tuple[str, str]]) -> None:
    versions = {name: {str(number): "Staging" for number in range(1, 4)} for name in "bcdef"}
    table = Table({"a": {"1": "Production"}, **versions}, {page: gone})
    views = {view.name: view for view in case.registry(table.answer, models_page=2, versions_page=2).snapshot()}
    seen = {(name, version) for name, view in views.items() for version in view.stages}
    assert seen - set(gone) == {(name, version) for name in table.versions for version in table.versions[name]} - set(
        gone
    )


def test_a_model_that_appears_between_the_two_searches_is_whole(case: Case) -> None:
    table = Table({"a": {"1": "Staging"}}, {})

    def answer(path: str, query: Query) -> Answer:
        if path == "registered-models/search":
            table.versions["b"] = {"1": "Production", "2": "Staging"}
        return table.answer(path, query)

    assert list(case.registry(answer).snapshot()) == table.truth()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/etc", "local paths"),
        ("file:///etc", "file"),
        ("http://169.254.169.254/latest", "169.254.169.254"),
        ("mlflow-artifacts://elsewhere:5000/x", "elsewhere"),
        ("s3:/no-bucket", "no host"),
        ("ftp://ada:secret@host/x", "ftp: addresses of host"),
        ("models:/a/1", "circle"),
    ],
)
def test_a_source_that_nobody_vouches_for_is_refused(case: Case, source: str, words: str, tmp_path: Path) -> None:
    registry = case.registry(lambda path, query: (200, {"artifact_uri": source}))
    with pytest.raises(Rejected, match=re.escape(words)) as caught:
        registry.download("a", "1", tmp_path / "into")
    assert "secret" not in str(caught.value)


ODD = [
    "..",
    ".",
    "a/b",
    "/etc/passwd",
    "nul\0",
    "back\\slash",
    "x" * 300,
    "cut \ud800 off",
    "fdp.\u202eexe",
    "a\nb",
]


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_a_listing_cannot_lead_out_of_the_folder(case: Case, name: str, is_folder: bool, tmp_path: Path) -> None:
    def answer(path: str, query: Query) -> Answer:
        return 200, {
            "artifact_uri": "mlflow-artifacts:/1/x",
            "files": [{"path": name, "is_dir": is_folder, "file_size": 1}],
        }

    with pytest.raises(Rejected, match="odd name") as caught:
        case.registry(answer).download("a", "1", tmp_path / "into")
    assert caught.value.reason.isprintable()
    assert [path.name for path in tmp_path.rglob("*")] == ["into"]


@pytest.mark.parametrize("second", [{"path": "a", "file_size": 1}, {"path": "a", "is_dir": True}])
def test_a_listing_that_names_one_thing_twice_is_refused(case: Case, second: Query, tmp_path: Path) -> None:
    def answer(path: str, query: Query) -> Answer:
        if path.endswith("/a"):
            return 200, b"1"
        deep = query.get("path", "").endswith("/a")
        listed = [{"path": "b", "file_size": 1}] if deep else [{"path": "a", "file_size": 1}, second]
        return 200, {"artifact_uri": "mlflow-artifacts:/1/x", "files": listed}

    with pytest.raises(Rejected, match=r"'a'|'a/b'"):
        case.registry(answer).download("a", "1", tmp_path / "into")


def test_folders_count_as_files_do(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(landing, "MAX_PLACES", 20)

    def answer(path: str, query: Query) -> Answer:
        many = [{"path": f"f{n}", "is_dir": True} for n in range(30)]
        return 200, {"artifact_uri": "mlflow-artifacts:/1/x", "files": [] if "/f" in query.get("path", "") else many}

    with pytest.raises(Rejected, match="more than 20 files and folders"):
        case.registry(answer).download("a", "1", tmp_path / "into")


def test_folders_without_end_are_refused(case: Case, tmp_path: Path) -> None:
    def answer(path: str, query: Query) -> Answer:
        return 200, {"artifact_uri": "mlflow-artifacts:/1/x", "files": [{"path": "deeper", "is_dir": True}]}

    with pytest.raises(Rejected, match="deep"):
        case.registry(answer).download("a", "1", tmp_path / "into")


@pytest.mark.parametrize("size", [3, 5, None, "4"])
def test_an_artifact_that_is_not_as_long_as_listed_is_copied_again(case: Case, size: Any, tmp_path: Path) -> None:
    def answer(path: str, query: Query) -> Answer:
        if path.endswith("/file"):
            return 200, b"four"
        return 200, {"artifact_uri": "mlflow-artifacts:/1/x", "files": [{"path": "file", "file_size": size}]}

    with pytest.raises(Transient):
        case.registry(answer).download("a", "1", tmp_path / "into")


LISTING = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Name>bucket</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"""


def bucket(files: dict[str, bytes]) -> Callable[[str, Query], Answer]:
    """As much of S3 as its client asks for: a listing of one folder and the objects."""

    def answer(path: str, query: Query) -> Answer:
        if not path.startswith("/bucket"):
            return 200, {"artifact_uri": "s3://bucket/models/1"}
        if "prefix" not in query:
            return 200, files[path.removeprefix("/bucket/models/1/")]
        folder = query["prefix"].removeprefix("models/1/").rstrip("/")
        inside = {name: body for name, body in files.items() if str(Path(name).parent) == (folder or ".")}
        entries = [
            f"<Contents><Key>models/1/{name}</Key><Size>{len(body)}</Size></Contents>" for name, body in inside.items()
        ]
        folders = {name.split("/")[0] for name in files if "/" in name} if not folder else set()
        entries += [f"<CommonPrefixes><Prefix>models/1/{name}/</Prefix></CommonPrefixes>" for name in folders]
        return 200, LISTING.format(prefix=query["prefix"], entries="".join(entries)).encode()

    return answer


@pytest.fixture
def cloud_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)


def test_artifacts_in_a_bucket_come_through_mlflows_client(
    case: Case, cloud_login: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"MLmodel": b"flavors: {}", "code/deep.py": b"print()"}
    registry = case.registry(bucket(files))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", registry._rest.address)
    registry.download("a", "1", tmp_path / "into")
    copied = {name: (tmp_path / "into" / name).read_bytes() for name in files}
    assert copied == files


@pytest.mark.parametrize(
    "key", ["models/1/../../../evil", "models/1/a/../../evil", "models/1/back\\slash", "models/1/%s"]
)
def test_a_buckets_keys_cannot_lead_out_of_the_folder(
    case: Case, cloud_login: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    def answer(path: str, query: Query) -> Answer:
        if not path.startswith("/bucket"):
            return 200, {"artifact_uri": "s3://bucket/models/1"}
        if "prefix" not in query:
            return 200, b"evil"
        entry = f"<Contents><Key>{key.replace('%s', 'x' * 300)}</Key><Size>4</Size></Contents>"
        return 200, LISTING.format(prefix=query["prefix"], entries=entry).encode()

    registry = case.registry(answer)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", registry._rest.address)
    with pytest.raises(Rejected, match="odd name"):
        registry.download("a", "1", tmp_path / "deep" / "into")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_bucket_that_is_away_or_empty(
    case: Case, cloud_login: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = case.registry(bucket({}), max_bytes=5)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{services.free_port()}")
    with pytest.raises(Transient, match=r"s3://bucket failed"):
        registry.download("a", "1", tmp_path / "one")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", registry._rest.address)
    with pytest.raises(Rejected, match="are missing"):
        registry.download("a", "1", tmp_path / "two")
    large = case.registry(bucket({"MLmodel": b"flavors: {}"}), max_bytes=5)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", large._rest.address)
    with pytest.raises(Rejected, match="5 bytes"):
        large.download("a", "1", tmp_path / "three")

"""MLflow's REST API over httpx: one client, and the one place where its errors become ours."""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from app import failpoints
from app.domain.errors import Fault, Transient

DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
INVALID = "INVALID_PARAMETER_VALUE"
MAX_ANSWER = 256 * 1024 * 1024

_CHECK_SERVER = "See that the MLflow server runs and that HEADGATE_MLFLOW_URI names it."
_CHECK_LOGIN = "Set HEADGATE_MLFLOW_USERNAME and HEADGATE_MLFLOW_PASSWORD to a login that may."
# These say that the server is overloaded or restarting, not that the request is wrong.
_AWAY = frozenset({408, 425, 429})

Row = Mapping[str, Any]


class ApiError(Fault):
    """MLflow understood and refused: `code` is its error code, such as RESOURCE_DOES_NOT_EXIST."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.code = code


class Rest:
    """A client of one MLflow server.

    `timeout_s` bounds the connection and every pause inside an answer; a whole JSON answer may take four times that.
    Every method raises Transient where MLflow is away or its answer is broken, and ApiError (a Fault) where it refuses.
    """

    def __init__(
        self, uri: str, timeout_s: float, username: str | None, password: str | None, token: str | None
    ) -> None:
        url = _parse(uri)
        auth = httpx.BasicAuth(username, password or "") if username else _userinfo(url)
        headers = {"Authorization": f"Bearer {token}"} if token and not auth else {}
        self.address = str(url.copy_with(userinfo=b"")).rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            base_url=f"{self.address}/api/2.0/",
            auth=auth,
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Row:
        """GET `mlflow/<path>` and return the JSON object."""
        return self._call("GET", path, params=params)

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> Row:
        """POST or DELETE `mlflow/<path>` with a JSON body and return the JSON object."""
        return self._call(method, path, body=body)

    def pages(self, path: str, key: str, size: int, **params: Any) -> Iterator[list[Row]]:
        """The lists under `key` of all pages of a search; a page that does not lead on raises Transient."""
        token, seen = "", {""}
        while True:
            page = self.get(path, {"max_results": size, **({"page_token": token} if token else {}), **params})
            rows = page.get(key, [])
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise Transient(f"MLflow's answer to {path} holds no list of {key}.", _CHECK_SERVER)
            yield rows
            token = page.get("next_page_token") or ""
            if not token:
                return
            if not rows or not isinstance(token, str) or token in seen:
                raise Transient(
                    f"MLflow's pages of {path} lead nowhere.", "This is read again; if it goes on, see MLflow's log."
                )
            seen.add(token)

    def list_artifacts(self, path: str) -> list[Row]:
        """What lies in one folder of the artifacts that MLflow serves: `path` (a bare name), `is_dir`, `file_size`."""
        answer = self._call("GET", "artifacts", params={"path": path}, service="mlflow-artifacts")
        files = answer.get("files", [])
        if not isinstance(files, list):
            raise Transient("MLflow's listing of the artifacts holds no list.", _CHECK_SERVER)
        return files

    def read_artifact(self, path: str, limit: int, deadline: float) -> Iterator[bytes]:
        """The bytes of one served artifact, at most `limit` of them, until the monotonic time `deadline`."""
        with self._open("GET", f"mlflow-artifacts/artifacts/{quote(path)}") as response:
            yield from _bounded(response, limit, deadline)

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        service: str = "mlflow",
    ) -> Row:
        deadline = time.monotonic() + 4 * self._timeout_s
        with self._open(method, f"{service}/{path}", params=params, json=body) as response:
            content = b"".join(_bounded(response, MAX_ANSWER, deadline))
        answer = _json_object(content)
        if answer is None:
            raise Transient(f"MLflow's answer to {path} is not a JSON object.", _CHECK_SERVER)
        return answer

    @contextlib.contextmanager
    def _open(self, method: str, path: str, **content: Any) -> Iterator[httpx.Response]:
        try:
            with failpoints.around("mlflow.call"), self._client.stream(method, path, **content) as response:
                if not response.is_success:
                    raise self._refusal(path, response)
                yield response
        except httpx.TransportError as error:
            # The text of the error may quote the URL; its class says enough.
            reason = f"MLflow at {self.address} did not answer ({type(error).__name__})."
            raise Transient(reason, _CHECK_SERVER) from None

    def _refusal(self, path: str, response: httpx.Response) -> Transient | Fault:
        content = b"".join(_bounded(response, MAX_ANSWER, time.monotonic() + 4 * self._timeout_s))
        answer, status = _json_object(content) or {}, response.status_code
        said = _words(answer.get("message")) or response.reason_phrase
        reason = f"MLflow answered {path} with {status}: {said}"
        if status >= 500 or status in _AWAY:
            return Transient(reason, "This is tried again; if it goes on, see MLflow's log.")
        if status in (401, 403):
            return Fault(reason, _CHECK_LOGIN)
        if "error_code" not in answer:
            return Fault(reason, f"Nothing at {self.address} speaks MLflow's REST API: set HEADGATE_MLFLOW_URI.")
        return ApiError(str(answer["error_code"]), reason, "See what MLflow says.")


def _parse(uri: str) -> httpx.URL:
    remedy = "Set HEADGATE_MLFLOW_URI to the http:// or https:// address of an MLflow server."
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL:
        raise Fault("The MLflow URI is not a URL.", remedy) from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise Fault("The MLflow URI is not the plain address of an HTTP server.", remedy)
    return url


def _userinfo(url: httpx.URL) -> httpx.BasicAuth | None:
    return httpx.BasicAuth(url.username, url.password) if url.username else None


def _bounded(response: httpx.Response, limit: int, deadline: float) -> Iterator[bytes]:
    # Raw bytes: what a server labels as compressed may just be a compressed artifact.
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > limit:
            raise Transient(f"MLflow's answer is larger than {limit} bytes.", _CHECK_SERVER)
        if time.monotonic() > deadline:
            raise Transient("MLflow's answer takes too long.", "This is tried again; see what slows the MLflow server.")
        yield chunk


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _words(message: Any) -> str:
    """What MLflow says, as one short line without the credentials of any URL in it."""
    line = " ".join(message.split()) if isinstance(message, str) else ""
    return re.sub(r"//[^/@\s]*@", "//", line)[:300]

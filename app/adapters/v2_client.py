"""V2Client: speaks the Open Inference Protocol (KServe V2) over HTTP to one endpoint or to a router."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Self
from urllib.parse import quote

import httpx

from app import failpoints
from app.domain.errors import Fault, Transient
from app.ports import Endpoint

# A router or a server that is starting says these; the same call may succeed later.
_LATER = frozenset({429, 502, 503, 504})
_TEXT = 2000


class V2Client:
    """A ServingClient. It keeps its connections open; it may be shared by threads. `max_bytes` bounds an answer."""

    def __init__(self, timeout: timedelta = timedelta(seconds=30), max_bytes: int = 64 * 1024 * 1024) -> None:
        # The environment's proxies are for the internet, not for our own servers.
        self._client = httpx.Client(timeout=timeout.total_seconds(), trust_env=False)
        self._max_bytes = max_bytes

    def infer(self, endpoint: Endpoint, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """POST /v2/models/<model>/infer with `body` as the protocol has it, and return the answer.

        Raises:
            Fault: the server refuses, with its words; or it answers no JSON object, or too much.
            Transient: the server cannot be reached, is too slow or asks to come again.
        """
        with failpoints.around("servingclient.infer"):
            return self._call(endpoint, "POST", f"/v2/models/{quote(model, safe='')}/infer", body)

    def config(self, endpoint: Endpoint, model: str) -> Mapping[str, Any]:
        """GET /v2/models/<model>/config: what really runs. Raises as `infer` does."""
        with failpoints.around("servingclient.config"):
            return self._call(endpoint, "GET", f"/v2/models/{quote(model, safe='')}/config", None)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, endpoint: Endpoint, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        url = f"http://{endpoint.host}:{endpoint.http_port}{path}"
        # Written here and not by httpx, which refuses the NaN that stands for a missing value; Triton reads it.
        content = None if body is None else json.dumps(body).encode()
        try:
            with self._client.stream(
                method, url, content=content, headers={"Content-Type": "application/json"}
            ) as answer:
                raw = self._read(answer, url)
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise Transient(f"{url} did not answer: {said}", "See whether the release runs.") from error
        if answer.status_code != httpx.codes.OK:
            raise _refusal(url, answer.status_code, raw)
        return _object(url, raw)

    def _read(self, answer: httpx.Response, url: str) -> bytes:
        raw = bytearray()
        for chunk in answer.iter_bytes():
            raw += chunk
            if len(raw) > self._max_bytes:
                raise Fault(f"{url} answers with more than {self._max_bytes} bytes.", "Send fewer rows at once.")
        return bytes(raw)


def _refusal(url: str, status: int, raw: bytes) -> Fault | Transient:
    try:
        text = str(json.loads(raw)["error"])
    except (ValueError, KeyError, TypeError):
        # It is no answer of Triton's own, so its words are taken as they are.
        text = raw[: 4 * _TEXT].decode(errors="replace")
    kind = Transient if status in _LATER else Fault
    return kind(f"{url} answers {status}: {text[:_TEXT].strip()}", "See the release's log.")


def _object(url: str, raw: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise Fault(f"{url} answers with no JSON: {error}", "See what listens there.") from error
    if not isinstance(value, dict):
        raise Fault(f"{url} answers with no JSON object.", "See what listens there.")
    return value

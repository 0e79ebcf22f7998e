"""The CLI's HTTP side: where the API is, whose token is used, and errors as people read them."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx


class Problem(Exception):
    """What the API refused, or why it could not be asked; `status` is 0 where there was no answer."""

    def __init__(self, title: str, detail: str = "", status: int = 0) -> None:
        super().__init__(f"{title}\n{detail}".strip())
        self.status = status


def home() -> Path:
    return Path(os.environ.get("HEADGATE_HOME", ".headgate"))


class Client:
    """Calls the API. The address is HEADGATE_API, or that of a running `headgate up`, or HEADGATE_PUBLIC_URL; the token
    is HEADGATE_TOKEN, or the admin's in HEADGATE_HOME."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        token = _token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=_address(), headers=headers, timeout=30, trust_env=False, transport=transport
        )

    def get(self, path: str, **query: Any) -> Any:
        return self._answer("GET", path, params={key: value for key, value in query.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._answer("POST", path, json=dict(body))

    def content(self, path: str, **query: Any) -> bytes:
        """The bytes of an answer that is a file."""
        return self._asked("GET", path, params=query, timeout=300).content

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a long answer as they come."""
        try:
            with self._http.stream("GET", path, timeout=httpx.Timeout(30, read=None)) as answer:
                if answer.is_error:
                    answer.read()
                    raise _problem(answer)
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def watch(self, promotion_id: int) -> Iterator[dict[str, Any]]:
        """A promotion each time it changes, until it has ended."""
        for line in self.lines(f"/api/v1/promotions/{promotion_id}/events"):
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def _answer(self, method: str, path: str, **rest: Any) -> Any:
        return self._asked(method, path, **rest).json()

    def _asked(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **rest)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _problem(answer)
        return answer

    def _unreachable(self, error: Exception) -> Problem:
        where = self._http.base_url
        return Problem(f"Headgate does not answer at {where} ({type(error).__name__}).", "Is `headgate up` running?")


def _address() -> str:
    if "HEADGATE_API" in os.environ:
        return os.environ["HEADGATE_API"]
    running = home() / "up.json"
    if running.is_file():
        return str(json.loads(running.read_text())["api"])
    return os.environ.get("HEADGATE_PUBLIC_URL", "http://127.0.0.1:8080")


def _token() -> str | None:
    if "HEADGATE_TOKEN" in os.environ:
        return os.environ["HEADGATE_TOKEN"]
    file = home() / "admin.token"
    return file.read_text().strip() if file.is_file() else None


def _problem(answer: httpx.Response) -> Problem:
    try:
        body = answer.json()
        return Problem(str(body["title"]), str(body.get("detail", "")), answer.status_code)
    except (ValueError, KeyError):
        return Problem(f"Headgate answered {answer.status_code}.", "", answer.status_code)

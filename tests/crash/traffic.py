"""Clients of the router: every model that has been live is asked all the time, whatever dies meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import httpx

from tests.crash.models import request, version_that_answers
from tests.crash.tally import Tally

_PAUSE = 0.05


class Traffic:
    """A thread that asks each of `served()` in turn; a context manager. `lost` is told of each request that was."""

    def __init__(
        self, router: str, served: Callable[[], Sequence[str]], tally: Tally, lost: Callable[[str], None]
    ) -> None:
        self._router, self._served, self._tally, self._lost = router, served, tally, lost
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        body = request()
        with httpx.Client(base_url=self._router, timeout=20, trust_env=False) as client:
            while not self._done.wait(_PAUSE):
                for model in self._served():
                    self._ask(client, model, body)
                    if self._done.wait(_PAUSE):
                        break

    def _ask(self, client: httpx.Client, model: str, body: object) -> None:
        try:
            answer = client.post(f"/v2/models/{model}/infer", json=body)
        except httpx.TransportError as error:
            self._count_lost(model, type(error).__name__, str(error))
            return
        if answer.status_code != httpx.codes.OK:
            self._count_lost(model, f"status {answer.status_code}", answer.text)
        elif version_that_answers(answer) is None:
            self._count_lost(model, "a wrong number", answer.text)
        else:
            self._tally.answered += 1

    def _count_lost(self, model: str, what: str, said: str) -> None:
        self._tally.unanswered[what] += 1
        self._lost(f"{time.time():.3f} {model}: {what}: {said}")

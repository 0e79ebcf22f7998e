"""A client that keeps sending while traffic moves, and remembers what each guest was answered."""

import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx
import pandas as pd

from examples.airbnb.data import FEATURES, NEW_BOROUGH, live_request

THREADS = 3
GUESTS = 120
PAUSE_SECONDS = 0.02


@dataclass
class Tally:
    """What came back: requests `sent`, how many of them `failed`, and by guest the releases in order of arrival."""

    sent: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    releases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def strays(self) -> list[str]:
        """Guests who came back to a release that they had left: with sticky keys there are none."""
        return [guest for guest, seen in self.releases.items() if _comes_back(seen)]


def _comes_back(seen: list[str]) -> bool:
    runs = [release for index, release in enumerate(seen) if index == 0 or seen[index - 1] != release]
    return len(runs) != len(set(runs))


class Traffic:
    """Sends single listings to the router from a few threads, each guest with a key of its own."""

    def __init__(self, router: str, model: str, rows: pd.DataFrame) -> None:
        self._url = f"{router}/v2/models/{model}/infer"
        self._bodies = [live_request(rows[FEATURES].iloc[[n]]) for n in range(min(len(rows), 200))]
        self._strange = [live_request(rows[FEATURES].iloc[[n]], NEW_BOROUGH) for n in range(min(len(rows), 50))]
        self._lock = threading.Lock()
        self._tally = Tally()
        self._stop = threading.Event()
        self.strange_share = 0.0
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def take(self) -> Tally:
        """The tally since the last call."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
        return taken

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _send(self, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 -- which guest asks next is no secret
        with httpx.Client(timeout=10, trust_env=False) as http:
            while not self._stop.is_set():
                # A guest belongs to one thread, so that his answers are counted in the order in which they came.
                guest = f"guest-{dice.randrange(GUESTS // THREADS) * THREADS + number}"
                strange = dice.random() < self.strange_share
                self._one(http, guest, dice.choice(self._strange if strange else self._bodies))
                time.sleep(PAUSE_SECONDS)

    def _one(self, http: httpx.Client, guest: str, body: dict[str, Any]) -> None:
        error, release = "", ""
        try:
            answer = http.post(self._url, json=body, headers={"X-Headgate-Key": guest})
            release = answer.headers.get("X-Headgate-Release", "")
            error = "" if answer.is_success else f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as problem:
            error = type(problem).__name__
        with self._lock:
            self._tally.sent += 1
            if error:
                self._tally.failed += 1
                self._tally.errors.append(f"{release}: {error}")
            else:
                self._tally.releases[guest].append(release)

"""People at MLflow: what each of them does next is drawn from a seed, and what they asked for is written down."""

import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.domain.registry import ASK_TAG

MODELS = ("apple", "birch", "cedar")
ALIASES = ("to-production", "to-production", "to-staging", "to-staging", "champion", "production")
STAGES = ("None", "Staging", "Production", "Archived")
ENVIRONMENTS = ("production", "staging", "moon")
FIRST_VERSIONS = 3


class Hand:
    """MLflow's REST API as the UI and scripts use it. What fails because MLflow is away may have been done or not."""

    def __init__(self, uri: str, source: Mapping[str, str]) -> None:
        self._uri, self._source = uri, source

    def send(self, method: str, path: str, **body: Any) -> bool:
        """Whether MLflow said yes."""
        try:
            url = f"{self._uri}/api/2.0/mlflow/{path}"
            return httpx.request(method, url, json=body, timeout=60, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def register(self, model: str, versions: int = FIRST_VERSIONS) -> bool:
        made = self.send("POST", "registered-models/create", name=model)
        return all([made, *(self.version(model) for _ in range(versions))])

    def version(self, model: str) -> bool:
        return self.send("POST", "model-versions/create", name=model, **self._source)

    def alias(self, model: str, alias: str, version: str | None) -> bool:
        if version is None:
            return self.send("DELETE", "registered-models/alias", name=model, alias=alias)
        return self.send("POST", "registered-models/alias", name=model, alias=alias, version=version)

    def tag(self, model: str, version: str, value: str | None) -> bool:
        if value is None:
            return self.send("DELETE", "model-versions/delete-tag", name=model, version=version, key=ASK_TAG)
        return self.send("POST", "model-versions/set-tag", name=model, version=version, key=ASK_TAG, value=value)

    def stage(self, model: str, version: str, stage: str, archive: bool) -> bool:
        fields = {"name": model, "version": version, "stage": stage, "archive_existing_versions": archive}
        return self.send("POST", "model-versions/transition-stage", **fields)


@dataclass
class Crowd:
    """Several people at once. `asked` counts (version, environment) that anybody ever asked for, of any model: models
    are renamed, and what stands then asks under the new name."""

    hand: Hand
    seed: int
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, people: int) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._live, args=(number,)) for number in range(people)]
        for thread in threads:
            thread.start()
        return threads

    def _live(self, number: int) -> None:
        rng, hand = random.Random(f"person {number} of {self.seed}"), self.hand
        while not self.stopping.wait(rng.uniform(0.02, 0.3)):
            what = rng.choices(
                [self._alias, self._back_and_forth, self._stage, self._tag, self._version, self._model],
                [8, 2, 4, 4, 1, 1],
            )[0]
            done = what(rng, hand, rng.choice(MODELS))
            with self.lock:
                self.done[what.__name__] += done

    def _ask(self, version: str, environment: str) -> None:
        with self.lock:
            self.asked[version, environment] += 1

    def _alias(self, rng: random.Random, hand: Hand, model: str) -> bool:
        alias, version = rng.choice(ALIASES), str(rng.randint(1, FIRST_VERSIONS))
        if rng.random() < 0.25:
            return hand.alias(model, alias, None)
        if alias.startswith("to-"):
            self._ask(version, alias.removeprefix("to-"))
        return hand.alias(model, alias, version)

    def _back_and_forth(self, rng: random.Random, hand: Hand, model: str) -> bool:
        alias = rng.choice(("to-production", "to-staging"))
        there, back = rng.choice((("1", "2"), ("3", "1")))
        for version in (there, back, there):
            self._ask(version, alias.removeprefix("to-"))
        return all(hand.alias(model, alias, version) for version in (there, back, there))

    def _stage(self, rng: random.Random, hand: Hand, model: str) -> bool:
        version, stage = str(rng.randint(1, FIRST_VERSIONS)), rng.choice(STAGES)
        if stage in ("Staging", "Production"):
            self._ask(version, stage.lower())
        return hand.stage(model, version, stage, stage in ("Staging", "Production") and rng.random() < 0.5)

    def _tag(self, rng: random.Random, hand: Hand, model: str) -> bool:
        version, value = str(rng.randint(1, FIRST_VERSIONS)), rng.choice((*ENVIRONMENTS, None))
        if value is not None:
            self._ask(version, value)
        return hand.tag(model, version, value)

    def _version(self, rng: random.Random, hand: Hand, model: str) -> bool:
        hand.send("DELETE", "model-versions/delete", name=model, version=str(rng.randint(1, FIRST_VERSIONS)))
        return hand.version(model)

    def _model(self, rng: random.Random, hand: Hand, model: str) -> bool:
        if rng.random() < 0.5:
            hand.send("DELETE", "registered-models/delete", name=model)
        else:
            hand.send("POST", "registered-models/rename", name=model, new_name=f"{model}-{rng.randint(1, 10**9)}")
        return hand.register(model)

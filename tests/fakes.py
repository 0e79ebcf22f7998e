"""Working fakes behind our own ports: quick, in memory, and honest about what they were asked to do."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from app.domain.canary import Sample
from app.domain.environments import Wanted
from app.domain.errors import Fault, Rejected, Transient
from app.domain.fencing import refuse_stale
from app.domain.policy import Policy, default_policy
from app.domain.registry import NO_STAGE, ModelView
from app.ports import Dataset, Endpoint, Environment, ReleaseSpec, Route, RouteStatus, SandboxJob, VersionInfo, Written


@dataclass
class FakeRegistry:
    """A registry of plain dictionaries; `away` makes every call fail as if MLflow were down."""

    models: dict[str, ModelView] = field(default_factory=dict)
    versions: dict[tuple[str, str], Path | None] = field(default_factory=dict)
    tags: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    model_tags: dict[str, dict[str, str]] = field(default_factory=dict)
    datasets: dict[tuple[str, str], Dataset] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    sources: dict[tuple[str, str], str] = field(default_factory=dict)
    away: bool = False

    def register(self, model: str, version: str, artifacts: Path | None = None) -> None:
        self.models.setdefault(model, ModelView(model))
        self.versions[(model, version)] = artifacts
        self.tags[(model, version)] = {}

    def change(
        self,
        model: str,
        aliases: Mapping[str, str] | None = None,
        stages: Mapping[str, str] | None = None,
        asks: Mapping[str, str] | None = None,
    ) -> None:
        """Replace what is given, as a person in the UI would."""
        view = self.models[model]
        self.models[model] = ModelView(
            model,
            view.aliases if aliases is None else aliases,
            view.stages if stages is None else stages,
            view.asks if asks is None else asks,
        )

    def _reach(self) -> None:
        if self.away:
            raise Transient("MLflow does not answer.", "Start it.")

    def read_model(self, name: str) -> ModelView | None:
        self._reach()
        versions = frozenset(version for model, version in self.versions if model == name)
        return replace(self.models[name], versions=versions) if name in self.models else None

    def snapshot(self) -> Iterator[ModelView]:
        self._reach()
        return iter(list(self.models.values()))

    def version(self, model: str, version: str) -> VersionInfo | None:
        self._reach()
        known = (model, version) in self.versions
        source = self.sources.get((model, version), "somewhere")
        return VersionInfo(model, version, "run", source, "trainer", True) if known else None

    def download(self, model: str, version: str, into: Path) -> None:
        self._reach()
        folder = self.versions[(model, version)]
        if folder is None:
            raise Rejected("The version's artifacts are missing.", "Log the model again.")
        shutil.copytree(folder, into, dirs_exist_ok=True)

    def dataset(self, run_id: str, name: str) -> Dataset:
        self._reach()
        if (run_id, name) not in self.datasets:
            raise Fault(f"The run {run_id} has logged 0 different datasets named {name!r}.")
        return self.datasets[(run_id, name)]

    def copy_dataset(self, uri: str, into: Path) -> None:
        self._reach()
        into.write_bytes(self.served[uri])

    def set_model_tag(self, model: str, key: str, value: str) -> None:
        self._reach()
        if model in self.models:
            self.model_tags.setdefault(model, {})[key] = value

    def set_version_tag(self, model: str, version: str, key: str, value: str) -> None:
        self._reach()
        self.tags[(model, version)][key] = value

    def delete_version_tag(self, model: str, version: str, key: str, value: str) -> Written:
        self._reach()
        view = self.models[model]
        found = view.asks.get(version)
        if found != value:
            return Written.ALREADY if found is None else Written.NOT
        self.change(model, asks={v: a for v, a in view.asks.items() if v != version})
        return Written.DONE

    def set_alias(self, model: str, alias: str, version: str) -> Written:
        self._reach()
        if (model, version) not in self.versions:
            return Written.NOT
        self.change(model, aliases={**self.models[model].aliases, alias: version})
        return Written.DONE

    def delete_alias(self, model: str, alias: str, version: str) -> Written:
        self._reach()
        aliases = self.models[model].aliases
        found = aliases.get(alias)
        if found != version:
            return Written.ALREADY if found is None else Written.NOT
        self.change(model, aliases={a: v for a, v in aliases.items() if a != alias})
        return Written.DONE

    def set_stage(
        self, model: str, version: str, stage: str, archive: bool, only_from: Collection[str] | None = None
    ) -> Written:
        self._reach()
        found = self.models[model].stages.get(version, NO_STAGE)
        if found == stage or (only_from is not None and found not in only_from):
            return Written.ALREADY if found == stage else Written.NOT
        stages = {**self.models[model].stages, version: stage}
        self.change(model, stages={v: s for v, s in stages.items() if s != NO_STAGE})
        return Written.DONE

    def ensure_webhook(self, url: str, secret: str) -> bool:
        self._reach()
        return False


@dataclass
class FakeQueue:
    """Remembers what was woken; messages go nowhere, as if the broker had lost them."""

    advanced: list[int] = field(default_factory=list)
    observed: list[str] = field(default_factory=list)
    deliveries: int = 0

    def advance(self, promotion_id: int) -> None:
        self.advanced.append(promotion_id)

    def observe(self, model: str) -> None:
        self.observed.append(model)

    def deliver(self) -> None:
        self.deliveries += 1


@dataclass
class FakePolicies:
    """The documented default, but for the models that are given one (or an error to raise)."""

    known: dict[str, Policy | Exception] = field(default_factory=dict)

    def policy(self, model: str) -> Policy:
        found = self.known.get(model)
        if isinstance(found, Exception):
            raise found
        return found or default_policy(model)


CONVERTED: dict[str, Any] = {
    "flavor": "sklearn",
    "rungs": [
        {"name": "default", "options": {}, "status": "differs", "rows": 3, "wrong_rows": 1, "largest_error": 0.5},
        {"name": "div", "options": {}, "status": "agrees", "rows": 3, "wrong_rows": 0, "largest_error": 0.0},
    ],
    "chosen": "div",
    "opset": 21,
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
    "outputs": [{"name": "variable", "datatype": "FP32", "shape": [-1, 1]}],
    "rows": 3,
    "rows_from": "input example",
    "optional": [],
}
SCORED: dict[str, Any] = {
    "metrics": {},
    "slices": [],
    "noise": [],
    "latency_ms": {"1": 0.2},
    "latency_samples_ms": {"1": [0.1, 0.2, 0.1]},
    "inputs": CONVERTED["inputs"],
    "outputs": CONVERTED["outputs"],
}
ROWS = (
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 1], "data": [1.0, 2.0, 3.0]}],'
    ' "outputs": [{"name": "variable", "datatype": "FP32", "shape": [3, 1], "data": [1.0, 2.0, 3.0]}]}'
)


@dataclass
class FakeSandbox:
    """Answers with prepared results, for the live version with those of `champion`; `before` is called with each job,
    to raise or to look."""

    results: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "scan": {"findings": [], "errors": [], "scanned": 3, "alone": {}},
            "convert": dict(CONVERTED),
            "score": dict(SCORED),
            "champion": {**SCORED, "metrics": {"rmse": 0.5}},
        }
    )
    before: Callable[[SandboxJob], None] = lambda job: None
    jobs: list[str] = field(default_factory=list)
    pairs: str = "[]"
    rows: str = ROWS
    forgets: str = ""

    def run(self, job: SandboxJob) -> Mapping[str, Any]:
        self.before(job)
        self.jobs.append(job.program)
        if job.program == "convert":
            files = {"model.onnx": "onnx", "rows.json": self.rows, "parity.json": self.pairs}
            for name in files.keys() - {self.forgets}:
                (job.output / name).write_text(files[name])
        return self.results["champion" if "-champion-" in job.output.name else job.program]

    def layer(self) -> str:
        return "a fake sandbox"

    def self_test(self) -> str:
        return "a fake sandbox"


@dataclass
class FakeEnvironments:
    """Environments that take no time: a folder each below `root`; `broken` is raised instead of building."""

    root: Path
    built: dict[str, Environment] = field(default_factory=dict)
    asked: list[Wanted] = field(default_factory=list)
    broken: Exception | None = None

    def find(self, wanted: Wanted) -> Environment | None:
        return self.built.get(wanted.digest("fake"))

    def build(self, wanted: Wanted) -> Environment:
        self.asked.append(wanted)
        if self.broken is not None:
            raise self.broken
        digest = wanted.digest("fake")
        folder = self.root / digest.removeprefix("sha256:")
        folder.mkdir(parents=True, exist_ok=True)
        pins = (line.partition("==") for line in wanted.requirements)
        packages = {**wanted.preferred, **{name: version for name, _, version in pins if version}}
        self.built[digest] = Environment(digest, folder, packages)
        return self.built[digest]


@dataclass
class FakeBuckets:
    """Objects by their URI."""

    objects: dict[str, bytes] = field(default_factory=dict)

    def fetch(self, uri: str, into: Path) -> None:
        if uri not in self.objects:
            raise Fault(f"{uri} is not there.")
        into.write_bytes(self.objects[uri])


@dataclass
class FakeServer:
    """Releases that "run" in a set; `starts` counts, `broken` refuses, `seen` holds the highest token by name."""

    running: dict[str, Endpoint] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    broken: Exception | None = None
    seen: dict[str, int] = field(default_factory=dict)

    def start(self, spec: ReleaseSpec, fence: int) -> Endpoint:
        if self.broken is not None:
            raise self.broken
        self._hold(spec.name, fence)
        if spec.name not in self.running:
            self.starts.append(spec.name)
            self.running[spec.name] = Endpoint("127.0.0.1", 10000 + len(self.starts), 20000 + len(self.starts))
        return self.running[spec.name]

    def find(self, name: str) -> Endpoint | None:
        return self.running.get(name)

    def stop(self, name: str, fence: int | None) -> None:
        if fence is not None:
            self._hold(name, fence)
        self.running.pop(name, None)

    def _hold(self, name: str, fence: int) -> None:
        refuse_stale(name, fence, self.seen.get(name, 0))
        self.seen[name] = fence

    def names(self) -> list[str]:
        return sorted(self.running)


@dataclass
class FakeRouter:
    """Keeps the routes it was given and the history of one model's changes; `answers` is its health check."""

    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    history: list[Route] = field(default_factory=list)
    away: bool = False
    answers: Callable[[Endpoint], bool] = lambda endpoint: True
    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def apply(self, routes: list[Route], change: Route, fence: int) -> None:
        if self.away:
            raise Transient("HAProxy does not answer.", "Start it.")
        key = (change.model, change.environment)
        refuse_stale(f"the router's route of {change.model}", fence, self.seen.get(key, 0))
        self.seen[key] = fence
        self.routes = {(route.model, route.environment): route for route in routes}
        self.history.append(change)

    def status(self, model: str, environment: str) -> RouteStatus:
        route = self.routes.get((model, environment)) or Route(model, environment, None)
        weights, up = {}, {}
        if route.canary is not None:
            weights["canary"], up["canary"] = route.weight, self.answers(route.canary.endpoint)
        if route.stable is not None:
            weights["stable"], up["stable"] = 100 - weights.get("canary", 0), self.answers(route.stable.endpoint)
        return RouteStatus(weights, up)

    def address(self, environment: str) -> str:
        return "http://127.0.0.1:9090"


@dataclass
class FakeMetrics:
    """What the router is said to have seen of the canary."""

    seen: Sample = field(default_factory=lambda: Sample(100, 0, 2.0))

    def sample(self, model: str, environment: str, role: Literal["stable", "canary"], since: float) -> Sample:
        return self.seen


class FakeBuilder:
    """An image id that depends on the tag alone."""

    def build(self, context: Path, tag: str, labels: Mapping[str, str]) -> str:
        return f"sha256:{tag}"


@dataclass
class FakeClient:
    """Answers each row with itself plus `off`."""

    off: float = 0.0
    kind: str = "KIND_CPU"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def infer(self, endpoint: Endpoint, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        data = [value + self.off for value in body["inputs"][0]["data"]]
        return {"outputs": [{"name": "variable", "datatype": "FP32", "shape": [len(data), 1], "data": data}]}

    def config(self, endpoint: Endpoint, model: str) -> Mapping[str, Any]:
        return {"instance_group": [{"kind": self.kind}]}


def quick(policy: Policy, environment: str = "production", **changes: Any) -> Policy:
    """The same policy with parts of one environment replaced."""
    changed = replace(policy.environments[environment], **changes)
    return replace(policy, environments={**policy.environments, environment: changed})

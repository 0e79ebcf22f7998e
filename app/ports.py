"""The outside world as Headgate needs it: small protocols that adapters fulfil and tests fake.

Every method may raise `Transient` (try again later) or `Fault` (ours to mend); what else it raises is said there.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Protocol

from app.domain.canary import Sample
from app.domain.environments import Wanted
from app.domain.notes import PublicKey
from app.domain.policy import Policy
from app.domain.registry import ModelView


@dataclass(frozen=True)
class VersionInfo:
    """What MLflow says of one model version. `user` is who ran the training run, where that is known."""

    model: str
    version: str
    run_id: str | None
    source: str
    user: str | None
    ready: bool


@dataclass(frozen=True)
class Dataset:
    """A dataset that a run has logged: MLflow's own digest of it, and where its file is (s3: or mlflow-artifacts:)."""

    name: str
    digest: str
    uri: str


class Written(Enum):
    """What became of a write that applies to what it expects to find: it was done, it needed no doing, or it was left
    out because the version is gone or somebody has made something else of it."""

    DONE = "done"
    ALREADY = "already"
    NOT = "not"


class Registry(Protocol):
    """MLflow's model registry."""

    def read_model(self, name: str) -> ModelView | None:
        """One model with the stages and tags of all its versions, and their numbers; None where it does not exist."""

    def snapshot(self) -> Iterator[ModelView]:
        """All models, page by page. A broken page raises: half a snapshot is never taken for the whole."""

    def version(self, model: str, version: str) -> VersionInfo | None:
        """One version, or None."""

    def download(self, model: str, version: str, into: Path) -> None:
        """Copy the version's artifacts into the empty folder `into`. Raises Rejected where they are missing."""

    def dataset(self, run_id: str, name: str) -> Dataset:
        """The dataset of that name that a run has logged as its input. Raises Fault where there is no such one."""

    def copy_dataset(self, uri: str, into: Path) -> None:
        """Copy a dataset's file that MLflow serves to the new file `into`. Raises Fault where it is missing."""

    def set_model_tag(self, model: str, key: str, value: str) -> None:
        """Set a tag of the registered model; one that is gone is ignored."""

    def set_version_tag(self, model: str, version: str, key: str, value: str) -> None:
        """Set a tag; a version that is gone is ignored."""

    def delete_version_tag(self, model: str, version: str, key: str, value: str) -> Written:
        """Delete a tag if it still holds `value`."""

    def set_alias(self, model: str, alias: str, version: str) -> Written:
        """Point the alias to the version; NOT where that is gone."""

    def delete_alias(self, model: str, alias: str, version: str) -> Written:
        """Delete the alias if it still points to `version`: it may have become somebody's next request."""

    def set_stage(
        self, model: str, version: str, stage: str, archive: bool, only_from: Collection[str] | None = None
    ) -> Written:
        """Move the version to a legacy stage, from `only_from` alone where that is given; `archive` moves the versions
        that were there to Archived."""

    def ensure_webhook(self, url: str, secret: str) -> bool:
        """See that exactly one active webhook of ours points to `url` with this secret; True if one was made."""


class ArtifactStore(Protocol):
    """Content-addressed, write-once storage."""

    def put_tree(self, folder: Path) -> str:
        """Copy a folder in and return its tree digest. Raises Rejected for links, devices, odd names, quotas."""

    def digest_of(self, folder: Path) -> str:
        """The digest that `put_tree` would give, with nothing kept. Raises Rejected as that does."""

    def tree(self, digest: str) -> Path:
        """The folder of a stored tree; read it, never write. Raises Fault where it is missing or was changed."""

    def manifest(self, digest: str) -> bytes:
        """The list of a stored tree's files: canonical JSON of `[path, size, sha256]`, whose SHA-256 is the digest.
        Raises Fault where it is missing or was changed."""

    def put_file(self, file: Path) -> str:
        """Copy one regular file in and return its digest."""

    def file(self, digest: str) -> Path:
        """The path of a stored file. Raises Fault where it is missing."""

    def verify(self, digest: str) -> None:
        """Read all that is stored under the digest of a tree or a file. Raises Fault where it is not what it was."""

    def scratch(self, name: str) -> Path:
        """An empty folder of that name on the same file system, for work in progress."""


class Buckets(Protocol):
    """Object storage in which judging rows may lie."""

    def fetch(self, uri: str, into: Path) -> None:
        """Copy the object `s3://<bucket>/<key>` to the new file `into`. Raises Fault where it is missing or closed."""


@dataclass(frozen=True)
class SandboxJob:
    """One untrusted piece of work: `program` is a module of workers.sandbox, `inputs` are mounted read-only under
    `/in/<name>`, `request` arrives as `/in/request.json`, and what it leaves in `/out` ends in `output`. `environment`
    is a folder of packages that the program finds instead of Headgate's own, read-only."""

    program: Literal["scan", "convert", "score"]
    inputs: Mapping[str, Path]
    request: Mapping[str, Any]
    output: Path
    timeout: timedelta = timedelta(minutes=5)
    memory_mib: int = 4096
    environment: Path | None = None


class Sandbox(Protocol):
    """A place without network, credentials or a way out."""

    def run(self, job: SandboxJob) -> Mapping[str, Any]:
        """Run the job and return its `result.json`, which is untrusted and size-limited.

        Raises Rejected where the job crashed, ran out of time or memory, or answered nonsense: the model's fault.
        Raises Fault where the sandbox itself cannot be set up.
        """

    def layer(self) -> str:
        """What holds untrusted code in, for the record: a container's image by its digest. Raises as `run`."""

    def self_test(self) -> str:
        """Say what the layer is and prove that it holds; raises Fault with the remedy where it does not."""


@dataclass(frozen=True)
class Environment:
    """Packages in a folder, for the Python that runs Headgate: its digest is that of the lock that it was installed
    from, `packages` are versions by name."""

    digest: str
    folder: Path
    packages: Mapping[str, str]


class Environments(Protocol):
    """Environments of packages, each built once and kept."""

    def find(self, wanted: Wanted) -> Environment | None:
        """The environment that was built for this request; None where there is none yet. Asks nobody outside."""

    def build(self, wanted: Wanted) -> Environment:
        """Build it, or find what another worker has built meanwhile. Nothing of a package is run.

        Raises Rejected where no such set of packages exists, Transient where the package index is away, Fault where it
        cannot be kept.
        """


@dataclass(frozen=True)
class ReleaseSpec:
    """What to serve: a Triton model repository in `repository` (or the image that holds it) under a name that is
    the same at every try, so that a second start adopts the first."""

    name: str
    model: str
    repository: Path
    image: str | None = None
    instance: Literal["cpu", "gpu"] = "cpu"


@dataclass(frozen=True)
class Endpoint:
    """Where a running release listens. Triton's V2 protocol over HTTP and gRPC."""

    host: str
    http_port: int
    grpc_port: int


class ModelServer(Protocol):
    """Starts and stops releases on Triton.

    `fence` is the caller's fencing token. A call with a lower token than was seen for that release raises LostLease and
    changes nothing that anybody could see, also where the release was stopped with the higher one.
    """

    def start(self, spec: ReleaseSpec, fence: int) -> Endpoint:
        """Start the release, or adopt the running one of that name, and return once it is ready.

        Raises Fault with the server's own words where it does not become ready in time, LostLease for a stale caller.
        """

    def find(self, name: str) -> Endpoint | None:
        """The endpoint of a running release, or None."""

    def stop(self, name: str, fence: int | None) -> None:
        """Stop the release and wait for its end; one that does not run is fine. Without a `fence` it is stopped
        whoever holds it: for the end of everything. Raises LostLease for a stale caller."""

    def names(self) -> list[str]:
        """All releases of ours that run."""


class ImageBuilder(Protocol):
    """Builds container images."""

    def build(self, context: Path, tag: str, labels: Mapping[str, str]) -> str:
        """Build the folder's Dockerfile (or adopt an image of that tag and labels) and return the image id."""


class ServingClient(Protocol):
    """Speaks the V2 protocol to one endpoint."""

    def infer(self, endpoint: Endpoint, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """POST /v2/models/<model>/infer and return the answer. Raises Fault with the server's error text."""

    def config(self, endpoint: Endpoint, model: str) -> Mapping[str, Any]:
        """GET /v2/models/<model>/config: what really runs."""


@dataclass(frozen=True)
class Server:
    """One release behind the router: `release` is `<version>@<digest12>`, as answers carry it."""

    release: str
    endpoint: Endpoint


@dataclass(frozen=True)
class Route:
    """Where the traffic of one model in one environment goes. `weight` is the canary's share in percent."""

    model: str
    environment: str
    stable: Server | None
    canary: Server | None = None
    weight: int = 0


@dataclass(frozen=True)
class RouteStatus:
    """What the router itself says: share in percent and health by role."""

    weights: Mapping[str, int] = field(default_factory=dict)
    up: Mapping[str, bool] = field(default_factory=dict)


class TrafficRouter(Protocol):
    """Splits traffic; it gives the canary none unless the controller's lease endpoint says 200."""

    def apply(self, routes: list[Route], change: Route, fence: int) -> None:
        """Make the router follow `routes` (all of them), of which `change` is the one that differs, without
        losing a request, and return when the running router reports it. Safe to repeat.

        `fence` is the caller's fencing token: one that is lower than the last one seen for the model and environment of
        `change` raises LostLease and changes nothing. A restart of the router forgets none.
        """

    def status(self, model: str, environment: str) -> RouteStatus:
        """Weights and health as the running router reports them."""

    def address(self, environment: str) -> str:
        """The base URL of the environment for V2 over HTTP."""


class MetricSource(Protocol):
    """What clients got, as the router saw it."""

    def sample(self, model: str, environment: str, role: Literal["stable", "canary"], since: float) -> Sample:
        """Requests, failures and p99 of one role since a unix time."""


class Queue(Protocol):
    """Wakes workers. A message may be lost or doubled; the sweep finds whatever is due. Never raises."""

    def advance(self, promotion_id: int) -> None:
        """Wake up one promotion."""

    def observe(self, model: str) -> None:
        """Have one model re-read from MLflow."""

    def deliver(self) -> None:
        """Have the outbox sent."""


class Policies(Protocol):
    """Where the policy of a model comes from."""

    def policy(self, model: str) -> Policy:
        """The policy of a model, the documented default where it has none. Raises Invalid for a malformed one."""


class Signer(Protocol):
    """The keys that sign the audit trail's checkpoints; while they are exchanged there are several."""

    def keys(self, name: str) -> list[PublicKey]:
        """The public keys, signing under this name, the main one first. Raises Fault where one cannot be read."""

    def sign(self, name: str, text: bytes) -> list[tuple[PublicKey, bytes]]:
        """A signature of each key over the text. Raises Fault as `keys` does."""


class Anchor(Protocol):
    """A place outside of the database that checkpoints are kept at."""

    def keep(self, note: str) -> None:
        """Add the note, unless it is the last one there. Raises Fault where it cannot be written."""


@dataclass(frozen=True)
class Identity:
    """Whom a trusted issuer vouches for. (`issuer`, `subject`) is the identity; `name` is what it would like to be
    called; `role` is empty where nothing that the issuer says gives one."""

    issuer: str
    subject: str
    name: str
    role: str
    machine: bool
    authenticated_at: datetime


class Identities(Protocol):
    """An issuer of bearer tokens that is trusted to say who somebody is."""

    def verify(self, token: str) -> Identity:
        """Whom the token is of. Raises Unauthorized where it does not hold, Transient where the issuer is away."""

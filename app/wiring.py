"""Puts the parts together from the settings: the only place that knows which adapter stands behind which port."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from celery import Celery

from app import failpoints
from app.adapters.anchor_file import AnchorFile
from app.adapters.audit_keys import KeyFiles
from app.adapters.bwrap import BwrapSandbox
from app.adapters.celery_queue import CeleryQueue, make_app
from app.adapters.docker_engine import DockerEngine, TritonDocker
from app.adapters.docker_sandbox import DockerSandbox
from app.adapters.haproxy import HAProxyRouter, Layout
from app.adapters.local_store import LocalStore
from app.adapters.mlflow_registry import MlflowRegistry
from app.adapters.oidc import OidcIssuer, Trust
from app.adapters.proven import ProvenSandbox
from app.adapters.s3_buckets import S3Buckets
from app.adapters.triton_process import TritonProcess
from app.adapters.uv_environments import Uv, UvEnvironments
from app.adapters.v2_client import V2Client
from app.db.session import Database
from app.parts import Core, Plant
from app.policy_files import PolicyFolder
from app.ports import ModelServer, Queue, Sandbox
from app.secret_files import make_once
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
NGC_TRITON = "nvcr.io/nvidia/tritonserver:25.10-py3"


def prepare_home(settings: Settings) -> Path:
    """Make the data folder and those in it that must exist before any process starts."""
    home = settings.home.resolve()
    for folder in (home, home / "broker" / "messages", home / "broker" / "control", settings.router_folder.resolve()):
        folder.mkdir(parents=True, exist_ok=True)
    return home


def celery(settings: Settings) -> Celery:
    """The Celery application of this installation."""
    return make_app(settings.broker_url.get_secret_value(), str(settings.home.resolve() / "broker"))


def registry(settings: Settings) -> MlflowRegistry:
    """The registry at MLflow."""
    password = settings.mlflow_password.get_secret_value()
    return MlflowRegistry(settings.mlflow_address, username=settings.mlflow_username or None, password=password or None)


def core(settings: Settings, queue: Queue | None = None) -> Core:
    """What every process needs."""
    parts = Core(
        db=Database(settings.database),
        registry=registry(settings),
        policies=PolicyFolder(settings.policy_dir),
        queue=queue or CeleryQueue(celery(settings)),
        public_url=settings.public_url,
        signer=signer(settings),
    )
    return failpoints.watch(parts)


def signer(settings: Settings) -> KeyFiles:
    """What signs the audit trail's checkpoints; without a setting one key is made once and kept in the data folder."""
    return KeyFiles(settings.audit_key or [settings.home.resolve() / "audit.key"], make=not settings.audit_key)


def anchor(settings: Settings) -> AnchorFile:
    """Where the audit trail's checkpoints are kept outside of the database."""
    file = settings.audit_anchor
    return AnchorFile(file.resolve() if file.name else settings.home.resolve() / "audit.checkpoints")


def identities(settings: Settings) -> OidcIssuer | None:
    """The issuer whose bearer tokens count beside our own, if there is one."""
    if not settings.oidc_issuer:
        return None
    return OidcIssuer(
        Trust(
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            roles=settings.oidc_roles,
            machines=settings.oidc_machines,
            roles_claim=settings.oidc_roles_claim,
            name_claim=settings.oidc_name_claim,
        )
    )


def store(settings: Settings, read_only: bool = False) -> LocalStore:
    """Where artifacts are kept."""
    return LocalStore(settings.home.resolve() / "store", read_only=read_only)


def router(settings: Settings) -> HAProxyRouter:
    """The traffic router of this installation."""
    host, _, port = settings.router_lease.rpartition(":")
    layout = Layout(
        folder=settings.router_folder.resolve(),
        environments=settings.router_ports,
        bind=settings.router_bind,
        lease=(host, int(port)),
        variant_token=settings.router_variant_token.get_secret_value() or None,
    )
    return HAProxyRouter(layout)


def triton(settings: Settings) -> TritonProcess:
    """The server that runs releases as processes of this machine."""
    backend = ROOT / "image_templates" / "onnxruntime_backend" / "model.py"
    return TritonProcess(settings.home.resolve(), settings.triton_dir.resolve(), backend, host=settings.release_host)


def sandbox(settings: Settings) -> Sandbox:
    """Where untrusted code runs, once it has been proved to hold."""
    programs = ROOT / "workers" / "sandbox"
    if settings.sandbox == "docker":
        return ProvenSandbox(DockerSandbox(programs, settings.sandbox_engine, settings.sandbox_image))
    return ProvenSandbox(BwrapSandbox(programs))


def uv(settings: Settings) -> Uv:
    """What resolves and installs models' environments."""
    return Uv(_environments(settings) / "cache", settings.environment_index.get_secret_value())


def _environments(settings: Settings) -> Path:
    return settings.home.resolve() / "environments"


def docker_ping(settings: Settings) -> str:
    """The Docker Engine's own name and version; raises where none answers."""
    return DockerEngine(settings.docker_host).version()


def server(settings: Settings) -> ModelServer:
    """The server of the target that the settings name."""
    return TritonDocker(settings.docker_host) if settings.target == "docker" else triton(settings)


def plant(settings: Settings) -> Plant:
    """What workers need to run the steps."""
    traffic = router(settings)
    parts = Plant(
        store=store(settings),
        sandbox=sandbox(settings),
        servers={"process": triton(settings), "docker": TritonDocker(settings.docker_host)},
        default_target=settings.target,
        base_images={"cpu": settings.triton_image, "gpu": NGC_TRITON},
        builder=DockerEngine(settings.docker_host, settings.image_registry or None),
        router=traffic,
        metrics=traffic,
        connect=V2Client,
        # The name that MLflow's own client has for it: whoever keeps artifacts elsewhere than at Amazon has set it.
        buckets=S3Buckets(os.environ.get("MLFLOW_S3_ENDPOINT_URL", "")),
        environments=UvEnvironments(_environments(settings), uv(settings)),
        environment_packages=frozenset(settings.environment_packages) if settings.environments == "on" else None,
        anchor=anchor(settings),
    )
    return failpoints.watch(parts)


def webhook_secrets(settings: Settings) -> Sequence[str]:
    """The webhook's secrets, current first; without a setting one is made once and kept in the data folder."""
    if settings.mlflow_webhook_secrets:
        return [secret.get_secret_value() for secret in settings.mlflow_webhook_secrets]
    file = settings.home.resolve() / "webhook.secret"
    if not file.exists():
        make_once(file, secrets.token_urlsafe(32).encode())
    return [file.read_text().strip()]

"""The settings: environment variables HEADGATE_*, each with a default that works on one machine."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.utils import canonicalize_name
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.domain.addresses import is_guarded
from app.domain.environments import ALLOWED
from app.domain.permissions import Role


class Settings(BaseSettings):
    """All that can be configured. Relative paths are taken from the working folder."""

    model_config = SettingsConfigDict(env_prefix="HEADGATE_", extra="ignore")

    home: Path = Field(Path(".headgate"), description="the data folder")
    database_url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL; empty: SQLite in the data folder")
    database_patience_seconds: float = Field(
        60, ge=0, description="how long `up` and `prepare` wait for a database that may be starting too"
    )
    broker_url: SecretStr = Field(SecretStr(""), description="Celery broker; empty: files in the data folder")
    mlflow_uri: str = Field("", description="MLflow's tracking server; empty: the one that `headgate up` starts")
    mlflow_port: int = Field(5000, description="the port of the local MLflow server that `headgate up` starts")
    mlflow_username: str = Field("", description="basic authentication at MLflow")
    mlflow_password: SecretStr = Field(SecretStr(""), description="basic authentication at MLflow")
    mlflow_webhook_secrets: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list, description="webhook secrets, current then previous, separated by a comma"
    )
    webhook_tolerance_seconds: float = Field(300, gt=0, description="how old a webhook's timestamp may be")
    public_url: str = Field("http://127.0.0.1:8080", description="where MLflow and people reach this service")
    webhook_url: str = Field("", description="where MLflow alone reaches this service; empty: the public URL")
    api_bind: str = Field("127.0.0.1", description="the address that the API listens on")
    trusted_proxies: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="addresses and networks, separated by commas, whose X-Forwarded-For and -Proto are believed",
    )
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="the names that callers may use in Host, separated by commas; empty: any"
    )
    max_body_bytes: int = Field(256 * 1024, gt=0, description="the largest body that the API takes")
    max_body_seconds: float = Field(15, gt=0, description="how long a body may take to come")
    max_json_depth: int = Field(32, gt=0, description="how deep brackets may be nested in a body")
    rate_per_second: float = Field(100, gt=0, description="calls of one principal, in each API process")
    rate_burst: int = Field(1000, gt=0, description="how many of them may come at once")
    rate_failures: int = Field(60, gt=0, description="calls of one address a minute that show no valid token")
    rate_streams: int = Field(10, gt=0, description="event streams of one principal at a time")
    policy_dir: Path = Field(Path("policies"), description="one YAML file a model")
    poll_seconds: float = Field(
        10,
        gt=0,
        description="least pause between two full readings of the registry: they take a tenth of the time at "
        "most, and are three times rarer while MLflow's webhooks come",
    )
    target: Literal["process", "docker"] = Field("process", description="where releases run unless the policy says")
    release_host: str = Field(
        "127.0.0.1", description="the address that releases of target process listen on and are reached at"
    )
    triton_dir: Path = Field(Path(".triton"), description="the unpacked nvidia-pytriton wheel, for target process")
    triton_image: str = Field("headgate/triton-cpu:latest", description="the base image, for target docker")
    docker_host: str = Field("unix:///var/run/docker.sock", description="the Docker Engine")
    image_registry: str = Field("", description="where images are pushed; empty: nowhere")
    sandbox: Literal["bwrap", "docker"] = Field("bwrap", description="the layer that untrusted code runs in")
    sandbox_image: str = Field("headgate/sandbox:latest", description="the image of its containers, for sandbox docker")
    sandbox_docker_host: str = Field("", description="the Docker Engine of the sandbox; empty: HEADGATE_DOCKER_HOST")
    environments: Literal["on", "off"] = Field(
        "on", description="models logged with other versions than Headgate's are loaded with their own; off: with ours"
    )
    environment_packages: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: list(ALLOWED),
        description="what a model's own environment may be asked for, separated by commas; its dependencies come along",
    )
    environment_index: SecretStr = Field(
        SecretStr(""), description="the only package index for models' environments; empty: as uv is configured"
    )
    audit_key: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="PEM files of the Ed25519 keys that sign the audit trail's checkpoints, the main one first, "
        "separated by a comma; empty: one is made in the data folder",
    )
    audit_anchor: Path = Field(
        Path(),
        description="the file that the checkpoints are kept in, best on a disk that the database's "
        "administrators cannot write; empty: in the data folder",
    )
    oidc_issuer: str = Field(
        "", description="an OpenID Connect issuer whose bearer tokens count (its `iss`); empty: none"
    )
    oidc_audience: str = Field("", validate_default=True, description="what its tokens for Headgate have as `aud`")
    oidc_roles: dict[str, Role] = Field(
        default_factory=dict,
        validate_default=True,
        description="by value of the roles' claim the role, as JSON; the first value there that a token has, counts",
    )
    oidc_roles_claim: str = Field("groups", description="the claim, or the path to it: realm_access.roles")
    oidc_machines: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="values of that claim that machines have, separated by commas"
    )
    oidc_name_claim: str = Field("preferred_username", description="the claim with a name for people; else email")
    router_dir: Path = Field(Path(), description="HAProxy's configuration and sockets; empty: in the data folder")
    router_bind: str = Field("127.0.0.1", description="the address that HAProxy listens on")
    router_ports: dict[str, tuple[int, int]] = Field(
        default={"staging": (9080, 9081), "production": (9090, 9091)},
        description="by environment the HTTP and the gRPC port",
    )
    router_lease: str = Field("127.0.0.1:8080", description="where HAProxy asks whether the controller is alive")
    router_variant_token: SecretStr = Field(
        SecretStr(""), description="who knows it may ask for one variant; empty: nobody may"
    )

    @field_validator("oidc_issuer")
    @classmethod
    def _guarded(cls, value: str) -> str:
        if value and not is_guarded(value):
            raise ValueError("an issuer is reached by https, or on this machine itself")
        return value

    @field_validator("oidc_audience", "oidc_roles")
    @classmethod
    def _with_issuer(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("oidc_issuer") and not value:
            raise ValueError("needed where HEADGATE_OIDC_ISSUER is set")
        return value

    @field_validator(
        "mlflow_webhook_secrets", "audit_key", "oidc_machines", "trusted_proxies", "allowed_hosts", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        # Checked here: what is no network would later be taken for a name, and never match.
        return [str(ip_network(part)) for part in value]

    @field_validator("environment_packages", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        return [canonicalize_name(part.strip()) for part in parts if part.strip()] if isinstance(parts, list) else value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL, with the default filled in."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.home.resolve() / 'headgate.db'}"

    @property
    def mlflow_address(self) -> str:
        """MLflow's address, with the default filled in."""
        return self.mlflow_uri or f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def webhook_address(self) -> str:
        """Where MLflow's webhook calls us."""
        return f"{(self.webhook_url or self.public_url).rstrip('/')}/webhooks/mlflow"

    @property
    def sandbox_engine(self) -> str:
        """The Docker Engine that the sandbox's containers run on."""
        return self.sandbox_docker_host or self.docker_host

    @property
    def router_folder(self) -> Path:
        return self.router_dir if str(self.router_dir) not in ("", ".") else self.home / "router"

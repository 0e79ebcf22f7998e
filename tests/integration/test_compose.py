"""The full stack's compose file as docker-compose reads it, and the scripts beside it on real PostgreSQL and Redis."""

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from sqlalchemy import URL, make_url

from app import wiring
from app.db.migrate import is_current, upgrade
from app.db.session import Database
from app.settings import Settings
from tests.services import free_port, postgres

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "compose" / "docker-compose.yml"
OURS = {"mlflow", "prepare", "api", "worker", "clock", "router"}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|AUTH")
FROM_ENV_FILE = re.compile(r"\$\{[A-Z_]+:\?run compose/make-env\.sh\}")


def _run(*command: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    # Nothing of the caller's environment may stand in for what the env file lacks.
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**kept, **environment})


def _config(folder: Path) -> "subprocess.CompletedProcess[str]":
    return _run("docker-compose", "-f", folder / "docker-compose.yml", "config")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compose folder as a fresh clone has it."""
    folder = tmp_path_factory.mktemp("clone") / "compose"
    shutil.copytree(SOURCE.parent, folder, ignore=shutil.ignore_patterns(".env*"))
    return folder


@pytest.fixture(scope="module")
def stack(copy: Path) -> Mapping[str, Any]:
    """The whole configuration with freshly made secrets."""
    made = _run(copy / "make-env.sh")
    assert made.returncode == 0, made.stderr
    done = _config(copy)
    assert (done.returncode, done.stderr) == (0, "")
    loaded: Mapping[str, Any] = yaml.safe_load(done.stdout)
    return loaded


@pytest.fixture
def services(stack: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = stack["services"]
    return found


@pytest.fixture
def settings(services: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the worker's container has them."""
    for name in [name for name in os.environ if name.startswith("HEADGATE_")]:
        monkeypatch.delenv(name)
    for name, value in services["worker"]["environment"].items():
        monkeypatch.setenv(name, value)
    return Settings()


def _secrets(folder: Path) -> Mapping[str, str]:
    lines = [line for line in (folder / ".env").read_text().splitlines() if not line.startswith(("#", "COMPOSE_"))]
    return dict(line.split("=", 1) for line in lines)


def _published(service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(host address, container port); docker-compose 1 writes strings and 2 writes mappings."""
    for port in service.get("ports", []):
        if isinstance(port, str):
            host, _, container = port.removesuffix("/tcp").split(":")
            yield host, container
        else:
            yield port.get("host_ip", "0.0.0.0"), str(port["target"])


def test_without_secrets_it_says_what_to_do(tmp_path: Path) -> None:
    shutil.copy(SOURCE, tmp_path)
    done = _config(tmp_path)
    assert done.returncode != 0
    assert "run compose/make-env.sh" in done.stderr


def test_secrets_are_made_once_and_for_their_owner_only(copy: Path, stack: Mapping[str, Any]) -> None:
    env = copy / ".env"
    before = env.read_text()
    values = _secrets(copy)
    again = _run(copy / "make-env.sh")
    assert (again.returncode, "stays as it is" in again.stderr) == (1, True)
    assert env.read_text() == before
    assert env.stat().st_mode & 0o777 == 0o600
    assert len(set(values.values())) == len(values) > 5
    assert all(len(value) >= 44 for value in values.values())
    assert [path.name for path in copy.glob(".env*")] == [".env"]


def test_the_env_file_never_reaches_git_or_an_image() -> None:
    assert ".env" in (SOURCE.parent / ".gitignore").read_text().splitlines()
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line for line in lines if line.startswith("!")]
    assert "*" in lines
    assert not [line for line in kept if "compose" in line or "env" in line]


def test_every_secret_comes_from_the_env_file() -> None:
    raw = yaml.safe_load(SOURCE.read_text())
    pairs = [pair for service in raw["services"].values() for pair in service.get("environment", {}).items()]
    secrets = [value for name, value in pairs if SECRET_NAME.search(name)]
    assert len(secrets) > 8
    assert [value for value in secrets if not FROM_ENV_FILE.fullmatch(value)] == []
    logins = [found for _, value in pairs for found in re.findall(r"://\w*:(.*)@", value)]
    assert len(logins) > 5
    assert [login for login in logins if not FROM_ENV_FILE.fullmatch(login)] == []


def test_no_secret_stands_in_a_command_line(copy: Path, stack: Mapping[str, Any]) -> None:
    commands = str([(s.get("command"), s.get("entrypoint"), s.get("healthcheck")) for s in stack["services"].values()])
    assert [name for name, secret in _secrets(copy).items() if secret in commands] == []


def test_only_three_services_are_published_and_on_loopback(services: Mapping[str, Any]) -> None:
    published = {name: list(_published(service)) for name, service in services.items()}
    assert {name for name, ports in published.items() if ports} == {"api", "mlflow", "router"}
    assert {host for ports in published.values() for host, _ in ports} == {"127.0.0.1"}


def test_no_container_has_privileges(services: Mapping[str, Any]) -> None:
    for name, service in services.items():
        assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"} & set(service), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "docker.sock" not in str(service.get("volumes")), name
    unconfined = {name for name, service in services.items() if "unconfined" in str(service["security_opt"])}
    assert unconfined == {"worker"}
    # MinIO's image knows no other user; it keeps no capability.
    assert {name for name in set(services) - OURS if "user" not in services[name]} == {"minio"}


def test_our_containers_share_one_image_and_run_as_nobody_special(services: Mapping[str, Any]) -> None:
    assert {services[name]["image"] for name in OURS} == {"headgate:0.1.0"}
    assert (SOURCE.parent / "Dockerfile").read_text().rstrip().endswith("USER 10001:10001")
    # The router's sockets are for its own user only, and the login for the artifacts is MLflow's alone.
    assert {name: services[name]["user"] for name in OURS if "user" in services[name]} == {"mlflow": "10002:10002"}


def test_data_services_are_out_of_reach(stack: Mapping[str, Any]) -> None:
    internal = {name for name, network in stack["networks"].items() if (network or {}).get("internal")}
    assert internal == {"state", "artifacts", "serving"}
    for name in ("postgres", "redis", "minio", "bucket"):
        assert set(stack["services"][name]["networks"]) <= internal, name


def test_everything_waits_for_what_it_needs(services: Mapping[str, Any]) -> None:
    waits = {
        name: {other: rule["condition"] for other, rule in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    ended, healthy = "service_completed_successfully", "service_healthy"
    assert waits["prepare"] == {"postgres": healthy}
    assert waits["router"] == {"prepare": ended}
    assert waits["api"] == waits["worker"] == {"prepare": ended, "redis": healthy, "mlflow": healthy}
    assert waits["mlflow"] == {"postgres": healthy, "bucket": ended}
    for waiting in waits.values():
        for other, condition in waiting.items():
            assert ("healthcheck" in services[other]) is (condition == healthy), other
            assert (services[other]["restart"] == "no") is (condition == ended), other


def test_settings_are_ones_that_exist(services: Mapping[str, Any], settings: Settings) -> None:
    known = {f"HEADGATE_{name.upper()}" for name in Settings.model_fields}
    assert set(services["worker"]["environment"]) <= known
    assert settings.target == "process"
    assert settings.webhook_url == "http://api:8080"


def test_the_other_sandbox_gives_the_worker_no_privilege_and_no_socket_of_the_machine(
    copy: Path, stack: Mapping[str, Any]
) -> None:
    files = ("-f", copy / "docker-compose.yml", "-f", copy / "docker-compose.sandbox.yml")
    profiles = {"WORKER_SECCOMP": "no-new-privileges=true", "WORKER_APPARMOR": "apparmor=docker-default"}
    done = _run("docker-compose", *files, "config", **profiles)
    assert (done.returncode, done.stderr) == (0, "")
    services: Mapping[str, Any] = yaml.safe_load(done.stdout)["services"]
    worker = services["worker"]
    assert worker["environment"]["HEADGATE_SANDBOX"] == "docker"
    assert set(worker["environment"]) <= {f"HEADGATE_{name.upper()}" for name in Settings.model_fields}
    assert {*worker["security_opt"]} == {"no-new-privileges:true", *profiles.values()}
    assert "docker.sock" not in str(worker["volumes"])
    assert worker["environment"]["HEADGATE_SANDBOX_DOCKER_HOST"] == "unix:///run/sandbox/docker.sock"
    assert "/run/sandbox" in str(worker["volumes"])
    # Nothing else of the stack gets any of it.
    others = {name: service.get("environment") for name, service in services.items() if name != "worker"}
    assert others == {name: service.get("environment") for name, service in stack["services"].items() if name in others}
    assert "/run/sandbox" not in str([service for name, service in services.items() if name != "worker"])


def test_the_router_runs_what_the_adapter_asks_for(services: Mapping[str, Any], settings: Settings) -> None:
    router = wiring.router(settings)
    assert services["router"]["command"] == router.command()
    ports = {str(port) for pair in settings.router_ports.values() for port in pair}
    assert {port for _, port in _published(services["router"])} == ports


def test_fixed_addresses_are_not_given_away(stack: Mapping[str, Any], settings: Settings) -> None:
    serving = stack["networks"]["serving"]["ipam"]["config"][0]
    subnet, given = ipaddress.ip_network(serving["subnet"]), ipaddress.ip_network(serving["ip_range"])
    fixed = {name: stack["services"][name]["networks"]["serving"]["ipv4_address"] for name in ("api", "worker")}
    assert settings.release_host == fixed["worker"]
    assert settings.router_lease == f"{fixed['api']}:8080"
    for address in map(ipaddress.ip_address, fixed.values()):
        assert address in subnet
        assert address not in given


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], URL]]:
    """A PostgreSQL on which the stack's script has run; gives the URL of a user and a database."""
    passwords = {"headgate": "it's-one", "mlflow": 'another-"one"'}
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        base = make_url(server.base)
        _make_way(base.set(drivername="postgresql", database="postgres"))
        made = _run(
            SOURCE.parent / "postgres" / "databases.sh",
            POSTGRES_USER="root",
            PGHOST=str(base.host),
            PGPORT=str(base.port),
            PGPASSWORD="root",
            HEADGATE_DB_PASSWORD=passwords["headgate"],
            MLFLOW_DB_PASSWORD=passwords["mlflow"],
        )
        assert made.returncode == 0, made.stderr
        yield lambda user, database: base.set(username=user, password=passwords[user], database=database)


def _make_way(superuser: URL) -> None:
    """The tests' superuser has the name that the stack gives to Headgate's own."""
    with psycopg.connect(superuser.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute("CREATE ROLE root SUPERUSER LOGIN PASSWORD 'root'")
    other = superuser.set(username="root", password="root").render_as_string(hide_password=False)
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute("ALTER ROLE headgate RENAME TO spare")


@pytest.mark.parametrize("user", ["headgate", "mlflow"])
def test_each_database_has_an_owner(databases: Callable[[str, str], URL], user: str) -> None:
    url = databases(user, user).render_as_string(hide_password=False)
    upgrade(url)
    database = Database(url)
    assert is_current(database, url)
    database.close()


@pytest.mark.parametrize(("user", "other"), [("headgate", "mlflow"), ("mlflow", "headgate")])
def test_an_owner_reaches_no_other_database(databases: Callable[[str, str], URL], user: str, other: str) -> None:
    url = databases(user, other).set(drivername="postgresql").render_as_string(hide_password=False)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(url)


def test_redis_wants_its_password_and_keeps_nothing(services: Mapping[str, Any], tmp_path: Path) -> None:
    shell, option, script = services["redis"]["command"]
    port = free_port()
    # docker-compose writes a dollar twice, so that it stays one when it is read again.
    script = script.replace("$$", "$").replace("dir /tmp", f"dir {tmp_path}\nport {port}\nbind 127.0.0.1")
    secret = services["redis"]["environment"]["REDISCLI_AUTH"]
    with subprocess.Popen([shell, option, script], env={**os.environ, "REDISCLI_AUTH": secret}) as server:
        try:
            patient = Retry(ConstantBackoff(0.1), 50)
            with redis.Redis(port=port, password=secret, decode_responses=True, retry=patient) as known:
                assert known.ping()
                assert known.config_get("save") == {"save": ""}
                assert known.config_get("appendonly") == {"appendonly": "no"}
            with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
        finally:
            server.terminate()
    assert list(tmp_path.iterdir()) == []

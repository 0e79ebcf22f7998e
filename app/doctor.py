"""`headgate doctor`: each setting, and each outside part tested for real, with the remedy for what fails."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url

from app import wiring
from app.db.migrate import is_current
from app.db.session import Database, now
from app.domain.errors import Fault, HeadgateError
from app.policy_files import parse
from app.services import deliveries
from app.settings import Settings


@dataclass(frozen=True)
class Check:
    """One outside part: `needed` False marks what this installation can do without."""

    name: str
    test: Callable[[], str]
    needed: bool = True


def main() -> int:
    """Print everything; 1 where a needed part fails."""
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors():
            print(f"HEADGATE_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}", file=sys.stderr)
        return 1
    _print_settings(settings)
    print()
    failed = 0
    for check in _checks(settings):
        good = _run(check)
        failed += check.needed and not good
    print()
    print("all is well" if not failed else f"{failed} parts need mending")
    return 1 if failed else 0


def _print_settings(settings: Settings) -> None:
    for name in type(settings).model_fields:
        print(f"HEADGATE_{name.upper():<26} {_masked(name, getattr(settings, name))}")


def _masked(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        if name.endswith("_url") and text:
            return make_url(text).render_as_string(hide_password=True)
        return "***" if text else "(not set)"
    if isinstance(value, list):
        return ", ".join(_masked(name, item) for item in value) or "(not set)"
    return str(value) if str(value) else "(not set)"


def _checks(settings: Settings) -> list[Check]:
    docker = settings.target == "docker"
    return [
        Check("data folder", lambda: _home(settings)),
        Check("database", lambda: _database(settings)),
        Check("broker", lambda: _broker(settings)),
        Check("MLflow", lambda: _mlflow(settings)),
        Check("webhooks", lambda: _webhooks(settings), needed=False),
        Check("issuer of identities", lambda: _issuer(settings), needed=bool(settings.oidc_issuer)),
        Check("policies", lambda: _policies(settings.policy_dir)),
        Check(f"sandbox ({settings.sandbox})", lambda: wiring.sandbox(settings).self_test()),
        Check("environments", lambda: _environments(settings), needed=settings.environments == "on"),
        Check("router", lambda: _program("haproxy", "apt-get install haproxy")),
        Check("Triton (process)", lambda: _triton(settings), needed=not docker),
        Check("Docker", lambda: wiring.docker_ping(settings), needed=docker),
    ]


def _run(check: Check) -> bool:
    try:
        print(f"ok    {check.name}: {check.test()}")
    except HeadgateError as error:
        mark = "FAIL" if check.needed else "skip"
        print(f"{mark:<5} {check.name}: {error.reason}")
        if error.remedy:
            print(f"      -> {error.remedy}")
        return False
    return True


def _home(settings: Settings) -> str:
    home = settings.home.resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home):
            free = shutil.disk_usage(home).free / 2**30
    except OSError as error:
        raise Fault(f"{home} cannot be written ({error.strerror}).", "Choose another HEADGATE_HOME.") from error
    if free < 1:
        raise Fault(f"Only {free:.1f} GiB are free in {home}.", "Models are copied there: make room.")
    return f"{home}, {free:.0f} GiB free"


def _database(settings: Settings) -> str:
    database = Database(settings.database)
    try:
        with database.read() as session:
            now(session)
        current = is_current(database, settings.database)
    finally:
        database.close()
    kind = make_url(settings.database).get_backend_name()
    return f"{kind}, " + ("schema is current" if current else "schema will be migrated by `headgate up`")


def _broker(settings: Settings) -> str:
    url = settings.broker_url.get_secret_value()
    if not url:
        return "files in the data folder"
    with wiring.celery(settings).connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=5)
        except connection.recoverable_connection_errors as error:
            raise Fault(
                f"It does not answer ({type(error).__name__}).", "Start it, or mend HEADGATE_BROKER_URL."
            ) from error
    return "it answers"


def _mlflow(settings: Settings) -> str:
    count = sum(1 for _ in wiring.registry(settings).snapshot())
    return f"{settings.mlflow_address}, {count} registered models"


def _webhooks(settings: Settings) -> str:
    database = Database(settings.database)
    with database.read() as session:
        found = deliveries.counts(session, None)
    database.close()
    return f"{found['missing']} of {found['announced']} changes that MLflow has a webhook for came without one"


def _issuer(settings: Settings) -> str:
    issuer = wiring.identities(settings)
    if issuer is None:
        raise Fault("None is configured.", "HEADGATE_OIDC_ISSUER: people then sign in with their own accounts.")
    return issuer.self_test()


def _policies(folder: Path) -> str:
    files = sorted(folder.glob("*.yaml"))
    for file in files:
        parse(file.read_text(), file.name)
    return f"{len(files)} files in {folder}, all well-formed"


def _environments(settings: Settings) -> str:
    version = wiring.uv(settings).version()
    return f"{version}, {len(settings.environment_packages)} packages may be asked for ({settings.environments})"


def _program(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Fault(f"{name} is not installed.", remedy)
    return path


def _triton(settings: Settings) -> str:
    folder = settings.triton_dir.resolve()
    if not (folder / "pytriton" / "tritonserver").is_dir():
        raise Fault(f"There is no tritonserver in {folder}.", "Run `make setup`, or set HEADGATE_TRITON_DIR.")
    return str(folder)


if __name__ == "__main__":
    sys.exit(main())

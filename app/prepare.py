"""`python -m app.prepare`: the one-shot that runs before the processes of a stack; safe to repeat while they run."""

import logging
import sys
from datetime import timedelta

from app import logs, wiring
from app.db.migrate import upgrade
from app.db.session import Database
from app.domain.errors import HeadgateError, Transient
from app.services.releases import routes
from app.settings import Settings

log = logging.getLogger(__name__)


def main() -> int:
    """Make the data folder, migrate the database, write what a router starts with; returns the exit status."""
    logs.configure()
    settings = Settings()
    wiring.prepare_home(settings)
    database = Database(settings.database)
    try:
        upgrade(settings.database, timedelta(seconds=settings.database_patience_seconds))
        _write_router_config(settings, database)
    except HeadgateError as error:
        log.error("prepare.failed", extra={"reason": error.reason, "remedy": error.remedy})
        return 1
    finally:
        database.close()
    return 0


def _write_router_config(settings: Settings, database: Database) -> None:
    router = wiring.router(settings)
    try:
        # A router that answers follows its workers, who may be ahead of what the database says.
        router.status("any", next(iter(settings.router_ports)))
    except Transient:
        with database.read() as session:
            router.write_config(routes(session))


if __name__ == "__main__":
    sys.exit(main())

"""Starts Headgate's processes quickly: everything is imported once, then each process is a fork of that and runs its
real main.

Driven by lines on standard input (`api`, `worker-3`, `clock`); says `<name> started <pid>` and `<name> ended <status>`
on standard output, and ends all of them when its input ends. Each child writes to `<logs>/<name>.log`.
"""

import ctypes
import importlib
import os
import select
import signal
import sys
import traceback
from pathlib import Path

from app import wiring
from app.adapters.bwrap import BwrapSandbox

PROGRAMS = Path(__file__).resolve().parent / "programs"
# What the mains import; their own modules read the settings and make connections, so each child imports them itself.
_PRELOADED = (
    "app.api.app", "app.services.principals", "celery.bin.celery", "celery.apps.beat", "celery.apps.worker",
    "celery.concurrency.thread", "docker", "kombu.transport.filesystem", "kombu.transport.redis", "psycopg", "redis",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite", "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.h11_impl", "workers.runner", "workers.tasks",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1


def _worker(name: str) -> None:
    app = importlib.import_module("workers.celery_app").app
    flags = ["--pool", "threads", "--concurrency", os.environ["CRASH_THREADS"], "--without-gossip", "--without-mingle"]
    app.worker_main(["worker", "-n", f"{name}@%h", "--loglevel", "WARNING", *flags])


def _clock(_name: str) -> None:
    importlib.import_module("workers.celery_app").app.start(["beat", "--pidfile="])


def _api(_name: str) -> None:
    import uvicorn

    port = int(os.environ["HEADGATE_PUBLIC_URL"].rpartition(":")[2])
    uvicorn.run("app.main:app", port=port, access_log=False, timeout_graceful_shutdown=5, log_level="warning")


_MAINS = {"api": _api, "worker": _worker, "clock": _clock}


def _born(name: str, logs: Path) -> int:
    """Fork a process that becomes `name`; returns its pid in the parent."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null, log = (
            os.open(os.devnull, os.O_RDONLY),
            os.open(logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        )
        for target, source in enumerate((null, log, log)):
            os.dup2(source, target)
        _MAINS[name.partition("-")[0]](name)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 -- a fork must never go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _reap(children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        print(f"{children.pop(pid)} ended {os.waitstatus_to_exitcode(status)}", flush=True)


def main() -> None:
    """Serve until standard input ends."""
    for module in _PRELOADED:
        importlib.import_module(module)
    # The one part that is not Headgate's own: inside the real sandbox, programs that answer at once.
    wiring.sandbox = lambda settings: BwrapSandbox(PROGRAMS)
    logs, children = Path(os.environ["CRASH_LOGS"]), dict[int, str]()
    print("ready", flush=True)
    while True:
        if select.select([0], [], [], 0.02)[0]:
            lines = os.read(0, 4096).decode().split()
            if not lines:
                break
            for name in lines:
                pid = _born(name, logs)
                children[pid] = name
                print(f"{name} started {pid}", flush=True)
        _reap(children)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Migrates databases in processes of its own, which may be killed: `python -m tests.upgrades` reads one JSON list of
URLs a line, upgrades all of them at the same time, and answers with the list of how the processes ended."""

import json
import logging
import os
import sys

from app.db.migrate import upgrade


def main() -> None:
    """Each process is forked from this one, which has imported everything: a new interpreter would take a second."""
    for line in sys.stdin:
        pids = [_start(url) for url in json.loads(line)]
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()


def _start(url: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            upgrade(url)
        except Exception:
            logging.exception("upgrade")
            os._exit(1)
        os._exit(0)
    return pid


if __name__ == "__main__":
    main()

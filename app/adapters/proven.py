"""A sandbox that takes no work before it has proved, in this very process, that it holds."""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from app.ports import Sandbox, SandboxJob

log = logging.getLogger(__name__)


class ProvenSandbox:
    """Runs the self-test of another sandbox before the first job. A failure is not remembered: every job tests anew
    until one test passes, so that whoever mends the machine need not restart the workers."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._lock = threading.Lock()
        self._proven = False

    def run(self, job: SandboxJob) -> Mapping[str, Any]:
        """Run the job. Raises Fault, with the remedy, where the self-test fails; as the other sandbox besides."""
        with self._lock:
            if not self._proven:
                log.info("sandbox.proven", extra={"said": self._sandbox.self_test()})
                self._proven = True
        return self._sandbox.run(job)

    def layer(self) -> str:
        """What the other sandbox is."""
        return self._sandbox.layer()

    def self_test(self) -> str:
        """The other sandbox's own test, run anew each time."""
        return self._sandbox.self_test()

"""How a run ended, and whose fault that is."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.errors import Fault, Rejected
from app.ports import SandboxJob
from app.sandbox.program import READY

MAX_TALK_BYTES = 64 << 20
_HEAD_BYTES, _TAIL_BYTES = 256, 16 << 10
_BROKE: Mapping[str, str] = {
    "output": "wrote too much",
    "talk": "printed without end",
    "threads": "started threads without end",
}
_SIGNALS = {128 + number: number for number in signal.valid_signals()}


@dataclass
class Talk:
    """The first and the last bytes that a process wrote on stdout and stderr, and how many there were."""

    head: bytes = b""
    tail: bytes = b""
    total: int = 0

    def add(self, chunk: bytes) -> None:
        self.head += chunk[: max(0, _HEAD_BYTES - len(self.head))]
        self.tail = (self.tail + chunk)[-_TAIL_BYTES:]
        self.total += len(chunk)


@dataclass
class Ending:
    """How a run ended: its status as a shell would say it, and which bound it broke: time, talk, output, threads,
    memory or nothing."""

    status: int = 0
    broke: str = ""
    talk: Talk = field(default_factory=Talk)


def judge(ending: Ending, job: SandboxJob, layer: str, remedy: str) -> None:
    """Raise what the ending of a run means, if it is not a good one.

    Raises:
        Rejected: the program crashed or broke a limit.
        Fault: our own code never came to its first word; `layer` is what should have started it.
    """
    said = last_words(ending.talk.tail)
    if not ending.talk.head.startswith(READY):
        raise Fault(f"The sandbox could not be set up: {said or f'{layer} ended with status {ending.status}'}", remedy)
    if ending.broke == "time":
        reason = f"took longer than {job.timeout.total_seconds():g} s"
        raise Rejected(f"The sandboxed {job.program} {reason} and was stopped.", "Make the model smaller or faster.")
    if ending.broke == "memory":
        raise _too_large(job, said)
    if ending.broke:
        reason = f"The sandboxed {job.program} {_BROKE[ending.broke]} and was stopped."
        raise Rejected(reason, "Look at what runs when it is loaded.")
    if ending.status == 0:
        return
    number = _SIGNALS.get(ending.status)
    if number == signal.SIGXCPU or (number == signal.SIGKILL and not said):
        raise Rejected(f"The sandboxed {job.program} used up its CPU time.", "Make the model smaller or faster.")
    if any(word in said for word in ("MemoryError", "bad_alloc", "Unable to allocate", "Cannot allocate memory")):
        raise _too_large(job, said)
    how = f"crashed ({signal.Signals(number).name})" if number else f"failed (status {ending.status})"
    raise Rejected(f"The sandboxed {job.program} {how}: {said}", "Load and score the model where it was trained.")


def _too_large(job: SandboxJob, said: str) -> Rejected:
    reason = f"needs more than the {job.memory_mib} MiB that it may use"
    return Rejected(f"The sandboxed {job.program} {reason} ({said}).", "Make the model smaller.")


def last_words(tail: bytes) -> str:
    """The last lines that were said, safe to show: printable, and at most 400 characters."""
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
    # Python marks the place of an error by a line of ^ below it, which says nothing here.
    telling = [line for line in lines if line.strip("^~ ") and line != READY.decode().strip()]
    words = " | ".join(telling[-2:])
    return "".join(character if character.isprintable() else " " for character in words)[-400:]

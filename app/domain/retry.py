"""When a step runs again after an error, and when its promotion gives up."""

from datetime import timedelta

MAX_TRANSIENT = 12
MAX_FAULT = 3
MAX_CRASHES = 4


def backoff(attempt: int) -> timedelta:
    """The pause before attempt `attempt + 1`: 1, 2, 4 ... seconds, at most a minute."""
    return timedelta(seconds=min(60, 2 ** max(0, attempt - 1)))


def gives_up(attempt: int, transient: bool) -> bool:
    """Whether the `attempt`-th failure (1 for the first) is the last one."""
    return attempt >= (MAX_TRANSIENT if transient else MAX_FAULT)

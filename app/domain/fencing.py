"""Fencing tokens: who comes with an older one than was seen already has lost its lease without knowing."""

from app.domain.errors import LostLease


def refuse_stale(what: str, fence: int, seen: int) -> None:
    """Compare a caller's token with the highest one that `what` has seen.

    Raises:
        LostLease: a later holder was there before.
    """
    if fence < seen:
        raise LostLease(f"{what} follows a later holder (token {seen}) than this one (token {fence})", seen=seen)

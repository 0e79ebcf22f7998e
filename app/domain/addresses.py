"""Which addresses nobody on the way can answer for."""

from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_guarded(url: str) -> bool:
    """Whether nobody on the way can change what this address answers: https, or this machine itself."""
    try:
        found = urlsplit(url)
        host = found.hostname or ""
    except ValueError:  # brackets without an address in them
        return False
    return bool(host) and (found.scheme == "https" or (found.scheme == "http" and host in LOOPBACK))

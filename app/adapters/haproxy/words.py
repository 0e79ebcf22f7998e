"""What the parts of the configuration, and those who read HAProxy's answers, must agree on."""

import json

from app.adapters.haproxy.splits import Target

RING = "samples"
# The two places of stable take turns: a server's address changes only while nobody uses it, because HAProxy goes on
# using the connections that were busy at that moment, and they still lead to the old address.
PLACES = ("blue", "green")
CANARY = "canary"
# Address of a server that has none: reserved for documents (RFC 5737), so it can never be somebody's.
NOWHERE = Target("", "192.0.2.1", 9, 9)
# Keys are spread over this many buckets; a share of 1 % is a hundredth of them.
BUCKETS = 10_000


def bracketed(host: str) -> str:
    """An IPv6 address as it stands beside a port."""
    return f"[{host}]" if ":" in host else host


def json_reply(status: int, error: str) -> str:
    """HAProxy's arguments for an answer of its own."""
    # Single quotes keep HAProxy from looking into the text, and no text here has one.
    return f"status {status} content-type application/json string '{json.dumps({'error': error})}'"

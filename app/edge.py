"""How the API meets the outside, as the settings have it."""

from app.api.app import Edge
from app.api.limits import Limits
from app.api.rates import Shares
from app.settings import Settings


def edge(settings: Settings) -> Edge:
    """Limits, shares, and whose word is taken on who calls."""
    limits = Limits(
        body_bytes=settings.max_body_bytes,
        body_seconds=settings.max_body_seconds,
        depth=settings.max_json_depth,
        hosts=frozenset(name.lower() for name in settings.allowed_hosts),
    )
    shares = Shares(settings.rate_per_second, settings.rate_burst, settings.rate_failures, settings.rate_streams)
    return Edge(limits, shares, settings.trusted_proxies, settings.public_url.startswith("https://"))

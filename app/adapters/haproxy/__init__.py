"""HAProxy as the traffic router, and its log as the source of what clients got."""

from app.adapters.haproxy.layout import Layout
from app.adapters.haproxy.router import HAProxyRouter

__all__ = ["HAProxyRouter", "Layout"]

"""The sandbox on bubblewrap: namespaces, a system call filter and limits around one Python program."""

from app.adapters.bwrap.sandbox import BwrapSandbox

__all__ = ["BwrapSandbox"]

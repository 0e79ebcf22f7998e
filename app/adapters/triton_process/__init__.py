"""Serves releases by tritonserver processes on this machine: no container, the same model repository."""

from app.adapters.triton_process.server import TritonProcess

__all__ = ["TritonProcess"]

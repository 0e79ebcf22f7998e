"""Environments of packages, resolved and installed by uv and kept in a folder."""

from app.adapters.uv_environments.environments import UvEnvironments
from app.adapters.uv_environments.uv import Uv

__all__ = ["Uv", "UvEnvironments"]

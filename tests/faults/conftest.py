"""The same installations as the stories."""

from tests.e2e.conftest import airbnb, backing

__all__ = ["airbnb", "backing"]

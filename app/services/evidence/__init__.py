"""The evidence of one promotion as an archive that proves itself: docs/evidence.md says what is in it."""

from app.services.evidence.pack import pack

__all__ = ["pack"]

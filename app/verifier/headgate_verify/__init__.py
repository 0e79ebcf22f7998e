"""Checks Headgate's audit trail and packs of evidence without Headgate: cli.py says how. It shares no code with the
service, so that a mistake in one is not repeated in the other, and takes nothing that it reads for granted."""

from .archive import read_pack
from .checkpoints import Checkpoint, Key, kept, notes, parse_key, parse_note
from .cli import main
from .export import check_export
from .leaves import check_proof
from .pack import check_pack
from .reading import Bad
from .tree import Tree

__all__ = [
    "Bad",
    "Checkpoint",
    "Key",
    "Tree",
    "check_export",
    "check_pack",
    "check_proof",
    "kept",
    "main",
    "notes",
    "parse_key",
    "parse_note",
    "read_pack",
]

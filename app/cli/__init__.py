"""The command line: a client of the API. `headgate --help` lists the commands."""

from app.cli.main import main

__all__ = ["main"]

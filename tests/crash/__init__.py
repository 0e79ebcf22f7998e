"""The crash harness: real processes, killed -9 at named points, on both databases; `python -m tests.crash --help`."""

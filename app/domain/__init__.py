"""The rules of Headgate as pure functions and values: standard library only, no I/O, no clock."""

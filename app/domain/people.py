"""A person's name in what a step leaves behind: recorded as a salted hash, so that a person can be forgotten."""


class Person(str):
    """A name that `transition` replaces by what stands for that person in leaves."""

    __slots__ = ()

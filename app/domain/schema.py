"""Whether one release can take another one's place without its callers noticing."""

from collections.abc import Sequence

from app.domain.measured import Schema, Tensor


def differences(new: Schema, live: Schema) -> list[str]:
    """What would break for callers of `live` if `new` answered them, in words; nothing where it fits.

    A request names every input, so the inputs must be the same ones. An answer may have more outputs than before.
    """
    names = {tensor.name for tensor in live.inputs}
    added = [f"it also needs the input {t.name}" for t in new.inputs if t.name not in names]
    return [*added, *_changed("input", new.inputs, live.inputs), *_changed("output", new.outputs, live.outputs)]


def _changed(role: str, new: Sequence[Tensor], live: Sequence[Tensor]) -> list[str]:
    found, by_name = [], {tensor.name: tensor for tensor in new}
    for old in live:
        other = by_name.get(old.name)
        if other is None:
            found.append(f"the {role} {old.name} is gone")
        elif other.datatype != old.datatype:
            found.append(f"the {role} {old.name} is {other.datatype} and was {old.datatype}")
        elif not _fits(role, other.shape, old.shape):
            found.append(f"the {role} {old.name} has the shape {list(other.shape)} and had {list(old.shape)}")
    return found


def _fits(role: str, new: Sequence[int], live: Sequence[int]) -> bool:
    """An input may become more lenient (-1 takes any length), an output stricter: it promises more than before."""
    lenient, strict = (new, live) if role == "input" else (live, new)
    return len(new) == len(live) and all(a in (-1, b) for a, b in zip(lenient, strict, strict=True))

"""What was measured of a release before anybody judged it: plain values, kept with the promotion."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Group:
    """The rows that share `key`, their values in the columns of the gate's `by`, and the metrics over them."""

    key: tuple[str, ...]
    rows: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Slices:
    """All groups of one choice of columns, largest first; `left_out` counts those that were too many to measure."""

    by: tuple[str, ...]
    groups: tuple[Group, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Noise:
    """How answers moved when `columns` floating-point inputs moved by `nudge` of their standard deviation.

    `change` is the average move of an answer: in standard deviations of the predictions, or the share of answers with
    another class where `classes`; None where all predictions are the same. `not_finite` of the `asked` answers to moved
    inputs, and to inputs far beyond all that was seen, were not finite.
    """

    nudge: float
    columns: int
    classes: bool
    change: float | None
    asked: int
    not_finite: int


@dataclass(frozen=True)
class Tensor:
    """One input or output as V2 names it; -1 in its shape is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Schema:
    """What a release takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Measurements:
    """All that gates judge. `metrics` and `champion` map a metric's name to its value on the same rows; `latency_ms`
    maps a batch size to the p99 in milliseconds; `champion` and `live_schema` are None where nothing is live yet."""

    rows: int
    wrong_rows: int
    largest_error: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    champion: Mapping[str, float] | None = None
    latency_ms: Mapping[int, float] = field(default_factory=dict)
    slices: tuple[Slices, ...] = ()
    noise: tuple[Noise, ...] = ()
    schema: Schema | None = None
    live_schema: Schema | None = None

"""Pictures for reviewers, as PNG files: numbers in, a file out. What is drawn came out of a sandbox, so all text is cut
and plain, and numbers without a place on paper are left out."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.domain.gates import HIGHER_IS_BETTER
from app.domain.measured import Slices
from app.domain.policy import SlicesGate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 30
_LONGEST_TEXT = 48
_SMALLEST, _LARGEST = 1e-30, 1e30
_BLUE, _GREY, _RED = "#2266aa", "#bbbbbb", "#cc3311"
# Matplotlib keeps fonts and parsers in module variables, and steps run in threads.
_drawing = threading.Lock()


def parity(file: Path, pairs: Sequence[tuple[float, float]], output: str) -> None:
    """The native model's values against those of ONNX Runtime: what agrees lies on the line."""
    with _axes(file, f"Native model and ONNX Runtime, {len(pairs)} rows") as axes:
        native, onnx = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        low, high = min([*native, *onnx], default=0.0), max([*native, *onnx], default=1.0)
        axes.plot([low, high], [low, high], color=_GREY, linewidth=1)
        axes.scatter(native, onnx, s=6, color=_BLUE, alpha=0.6, linewidths=0, zorder=3)
        axes.set_xlabel(_plain(f"native {output}"), parse_math=False)
        axes.set_ylabel(_plain(f"ONNX {output}"), parse_math=False)


def slices(file: Path, gate: SlicesGate, whole: float, found: Slices) -> None:
    """The metric of each group, the worst on top, beside the whole's and the limit; grey ones have too few rows."""
    groups = [group for group in found.groups if _drawable(group.metrics.get(gate.name))] if _drawable(whole) else []
    is_high_good = gate.name in HIGHER_IS_BETTER
    worst = sorted(groups, key=lambda group: group.metrics[gate.name], reverse=not is_high_good)[:MOST_BARS][::-1]
    limit = whole / gate.max_ratio if is_high_good else whole * gate.max_ratio
    with _axes(file, f"{gate.name} by {', '.join(gate.by)}", len(worst)) as axes:
        colors = [_BLUE if group.rows >= gate.min_rows else _GREY for group in worst]
        axes.barh(range(len(worst)), [group.metrics[gate.name] for group in worst], color=colors)
        labels = [_plain(f"{' / '.join(group.key)} ({group.rows})") for group in worst]
        axes.set_yticks(range(len(worst)), labels=labels, parse_math=False, fontsize=8)
        if groups:
            axes.axvline(whole, color="black", linewidth=1, label=f"all rows {whole:.4g}")
            axes.axvline(limit, color=_RED, linewidth=1, linestyle="--", label=f"limit {limit:.4g}")
            axes.legend(fontsize=8)
        axes.set_xlabel(gate.name)


def latency(file: Path, samples: Mapping[int, Sequence[float]], limits: Mapping[int, float], where: str) -> None:
    """How long calls took, in milliseconds, by batch size, with the policy's limits on the 99th percentile."""
    with _axes(file, f"Latency {where}") as axes:
        drawn = {batch: [ms for ms in values if 1e-4 < ms < 1e7] for batch, values in samples.items()}
        for batch, values in sorted(drawn.items()):
            counts, edges = np.histogram(values, bins=40)
            axes.stairs(counts, edges, fill=True, alpha=0.6, label=f"{batch} row{'s' if batch > 1 else ''} a call")
        # A limit far away would leave no room for what was measured: it is told and not drawn.
        far = 3 * max((ms for values in drawn.values() for ms in values), default=math.inf)
        for batch, limit in sorted(limits.items()):
            label = f"p99 limit, batch {batch}: {limit:g} ms"
            if limit <= far:
                axes.axvline(limit, color=_RED, linewidth=1, linestyle="--", label=label)
            else:
                axes.plot([], [], color=_RED, linewidth=1, linestyle="--", label=f"{label} (beyond)")
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("calls")
        if samples or limits:
            axes.legend(fontsize=8)


def _drawable(value: float | None) -> bool:
    return value is not None and (value == 0 or _SMALLEST < abs(value) < _LARGEST)


def drawable_pairs(native: Sequence[float], onnx: Sequence[float]) -> list[tuple[float, float]]:
    """Those pairs of which both numbers have a place on paper."""
    return [(a, b) for a, b in zip(native, onnx, strict=False) if _drawable(a) and _drawable(b)]


@contextmanager
def _axes(file: Path, title: str, bars: int = 0) -> "Iterator[Axes]":
    """Axes to draw on; the picture is in the new file when the block ends."""
    from matplotlib.figure import Figure  # It takes half a second, which only workers that draw should spend.

    with _drawing:
        figure = Figure(figsize=(7, max(4.5, 1.5 + 0.22 * bars)), dpi=100)
        axes = figure.subplots(gridspec_kw={"left": 0.4 if bars else 0.12, "right": 0.97})
        axes.set_title(_plain(title), fontsize=10, parse_math=False)
        yield axes
        figure.savefig(file, format="png", metadata={"Software": None})


def _plain(text: str) -> str:
    """Text that every font has, and no more of it than fits."""
    shown = "".join(character if character.isprintable() and character <= "\u024f" else "?" for character in text)
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[: _LONGEST_TEXT - 3]}..."

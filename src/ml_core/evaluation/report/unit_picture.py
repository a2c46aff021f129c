"""Pictures that a script can move a point in: their coordinates are the numbers themselves, 0 to 1.

Matplotlib draws what stands still; in these, a position is a share and needs no scale to be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_core.metrics import CurvePoints

Floats = npt.NDArray[np.float64]

NUM_BINS = 50  # of the distribution: two hundredths wide, which 1,500 patches still fill


@dataclass(frozen=True)
class Curve:
    """A curve as the data of an SVG path, and the operating point on it; None where undefined."""

    path: str
    x: float | None
    y: float | None


@dataclass(frozen=True)
class Distribution:
    """Histograms of two classes as SVG paths, tumours above the axis at 0, normal patches below it.

    Heights are the roots of counts (Tukey's rootogram), so that ten patches in the middle are seen
    beside thousands at the ends. `ticks` are (count, height).
    """

    tumour: str
    normal: str
    ticks: tuple[tuple[int, float], ...]


def curve(points: CurvePoints, x: float | None, y: float | None) -> Curve:
    """Return the curve through `points`, none for a split of one class, and the point (x, y)."""
    if x is None or y is None:
        x = y = None
    steps = [f"{a:.4f} {b:.4f}" for a, b in zip(points.x, points.y, strict=True)]
    return Curve(f"M{'L'.join(steps)}" if steps else "", x, y)


def distribution(labels: npt.NDArray[np.int64], probs: Floats) -> Distribution:
    """Return the histograms of `probs` (N,) by class."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    tumour, _ = np.histogram(probs[labels == 1], edges)
    normal, _ = np.histogram(probs[labels == 0], edges)
    tallest = max(int(tumour.max()), int(normal.max()), 1)
    return Distribution(
        tumour=_steps(edges, np.sqrt(tumour / tallest)),
        normal=_steps(edges, -np.sqrt(normal / tallest)),
        ticks=tuple((count, (count / tallest) ** 0.5) for count in _round_counts(tallest)),
    )


def _steps(edges: Floats, heights: Floats) -> str:
    bars = zip(heights, edges[1:], strict=True)
    return f"M0 0{''.join(f'V{height:.4f}H{edge:.2f}' for height, edge in bars)}V0Z"


def _round_counts(tallest: int) -> list[int]:
    """Return the largest 1, 2 or 5 times a power of ten that fits, after a power far below it."""
    largest = 10 ** int(np.log10(tallest))
    largest *= max(factor for factor in (1, 2, 5) if factor * largest <= tallest)
    small = 10 ** int(np.log10(max(largest // 8, 1)))
    return [largest] if small >= largest else [small, largest]

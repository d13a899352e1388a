"""Curves and histograms as points of small SVG drawings, which the page's template draws in the page's colours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 250, 205
LEFT, RIGHT, TOP, BOTTOM = 44, 241, 8, 164
"""Of the axes within the drawing."""
MOST_POINTS = 120
BINS = 20

Curve = tuple[np.ndarray, np.ndarray]
"""x and y, each (N,), in [0, 1]."""


@dataclass(frozen=True)
class Chart:
    """What the template draws; all coordinates are those of the drawing.

    Attributes:
        title, x_label, y_label: for readers and screen readers.
        caption: below the chart.
        x_ticks, y_ticks: places with their labels; thin lines run across the chart there.
        lines: class of the style sheet and points of each line, area or outline.
        dot: where the run's threshold lies; None: nowhere.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[str, str]]
    dot: tuple[float, float] | None = None


def image_curves(labels: Sequence[int], scores: Sequence[float]) -> tuple[Curve, Curve] | None:
    """ROC and precision-recall curve over the image thresholds; None where only one label occurs.

    Args:
        labels: 0 or 1 per image.
        scores: larger is more anomalous.
    """
    if len(set(labels)) < 2:
        return None
    values, truth = np.asarray(scores), np.asarray(labels, bool)
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)  # equal scores are reached together
    hits, false_alarms = truth[order].cumsum()[ends], (~truth[order]).cumsum()[ends]
    recall = np.append(0, hits / hits[-1])
    return (
        (np.append(0, false_alarms / false_alarms[-1]), recall),
        (recall, np.append(1, hits / (hits + false_alarms))),
    )


def curve_chart(
    name: str,
    caption: str,
    x_label: str,
    y_label: str,
    image: Curve | None,
    pixel: Curve | None,
    chosen: tuple[float, float] | None,
    steps: bool = False,
) -> Chart:
    """Curves of image and pixel level in the unit square.

    Args:
        chosen: where the run's threshold lies on the image curve.
        steps: whether y at an x is that of the next point, as average precision counts precision.
    """
    lines = [] if steps else [("diagonal", _points(np.array([0.0, 1.0]), np.array([0.0, 1.0])))]
    if pixel is not None:
        lines.append(("pixel-level", _points(*_thinned(*pixel))))
    if image is not None:
        x, y = _thinned(*image)
        lines.append(("image-level", _points(np.repeat(x, 2)[1:-1], np.repeat(y, 2)[2:]) if steps else _points(x, y)))
    dot = None if chosen is None else (_across(chosen[0]), _up(chosen[1]))
    ends = [0.0, 0.5, 1.0]
    return Chart(name, caption, x_label, y_label, _ticks(ends, _across), _ticks(ends, _up), lines, dot)


def score_histogram(
    caption: str, normal: Sequence[float], anomalous: Sequence[float], threshold: float, unlabelled: bool
) -> Chart:
    """How the image scores are distributed, and the threshold.

    Args:
        normal, anomalous: scores in [0, 1] by label; unlabelled ones as `normal`.
        threshold: of the image score.
    """
    edges = np.linspace(0, 1, BINS + 1)
    heights = [np.histogram(scores, edges)[0] for scores in (normal, anomalous)]
    counts = _round_counts(int(np.max(heights)))
    scale = 1 / counts[-1]
    x, shapes = np.repeat(edges, 2), [np.concatenate([[0], np.repeat(part, 2), [0]]) * scale for part in heights]
    lines = [("unlabelled area" if unlabelled else "normal area", _points(x, shapes[0]))]
    if len(anomalous):  # an outline over an area: told apart without colours too
        lines.append(("anomalous outlined", _points(x, shapes[1])))
    lines.append(("threshold", _points(np.full(2, min(threshold, 1.0)), np.array([0.0, 1.0]))))
    x_ticks = _ticks([0.0, 0.5, 1.0], _across)
    y_ticks = [(_up(count * scale), str(count)) for count in counts]
    return Chart("histogram of the image scores", caption, "image score", "images", x_ticks, y_ticks, lines)


def _round_counts(top: int) -> range:
    """From 0 to `top` or just above it, in at most five round steps."""
    step = next(step for power in range(18) for step in (10**power, 2 * 10**power, 5 * 10**power) if top <= 5 * step)
    return range(0, -(-max(top, 1) // step) * step + 1, step)


def _ticks(values: Sequence[float], place: Callable[[float], float]) -> list[tuple[float, str]]:
    return [(place(value), f"{value:g}") for value in values]


def _across(x: Any) -> Any:
    """From [0, 1] to the drawing: a number or an array."""
    return LEFT + x * (RIGHT - LEFT)


def _up(y: Any) -> Any:
    return BOTTOM - y * (BOTTOM - TOP)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    """As SVG's attribute of this name, to a tenth of a point."""
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(_across(x), _up(y), strict=True)).replace(".0", "")


def _thinned(x: np.ndarray, y: np.ndarray) -> Curve:
    """At most `MOST_POINTS` of the points, evenly along the curve, its ends among them."""
    if len(x) <= MOST_POINTS:
        return x, y
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], MOST_POINTS)).clip(max=len(x) - 1))
    return x[chosen], y[chosen]

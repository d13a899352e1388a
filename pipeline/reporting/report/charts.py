"""Curves and histograms as small inline SVG whose colours are those of the page, in light and in dark.

The page's style sheet defines the custom properties --normal, --anomalous, --image-level, --pixel-level and --grid.
"""

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

WIDTH, HEIGHT = 250, 205
PLACE = (0.175, 0.2, 0.79, 0.76)
"""Of the axes in the figure: left, bottom, width, height."""
DOT_RADIUS = 3.6
MOST_POINTS = 120
BINS = 20
INK, GRID, NORMAL, ANOMALOUS, IMAGE_LEVEL, PIXEL_LEVEL = (f"#0a0b0{number}" for number in range(6))
_COLOURS = {
    INK: "currentColor",
    GRID: "var(--grid)",
    NORMAL: "var(--normal)",
    ANOMALOUS: "var(--anomalous)",
    IMAGE_LEVEL: "var(--image-level)",
    PIXEL_LEVEL: "var(--pixel-level)",
}
_STYLE: Any = {  # a dictionary of names that matplotlib types one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "anomalyclip",
    "path.simplify": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that the layout is the same everywhere
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

Curve = tuple[np.ndarray, np.ndarray]
"""x and y, each (N,), in [0, 1]."""


def image_roc(labels: Sequence[int], scores: Sequence[float]) -> Curve | None:
    """False and true positive rate over the image thresholds; None where only one label occurs."""
    if len(set(labels)) < 2:
        return None
    false_positives, true_positives, _ = roc_curve(labels, scores)
    return false_positives, true_positives


def image_precision_recall(labels: Sequence[int], scores: Sequence[float]) -> Curve | None:
    """Recall, ascending, and precision over the image thresholds; None where only one label occurs."""
    if len(set(labels)) < 2:
        return None
    precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
    return recall[::-1], precision[::-1]


def roc_chart(image: Curve | None, pixel: Curve | None, chosen: tuple[float, float] | None) -> str:
    """Receiver operating characteristic.

    Args:
        image, pixel: false positive rate and true positive rate of either level.
        chosen: where the run's threshold lies on the image curve.
    """
    figure, axes = _unit_axes("false positive rate", "true positive rate")
    _line(axes, (np.array([0.0, 1.0]), np.array([0.0, 1.0])), GRID, 1, (0, (3, 3)))
    return _curves(figure, axes, image, pixel, chosen, "ROC curve")


def precision_recall_chart(image: Curve | None, pixel: Curve | None, chosen: tuple[float, float] | None) -> str:
    """Precision over recall; arguments as for `roc_chart`, with recall and precision."""
    figure, axes = _unit_axes("recall", "precision")
    return _curves(figure, axes, image, pixel, chosen, "precision-recall curve")


def score_histogram(normal: Sequence[float], anomalous: Sequence[float], threshold: float, unlabelled: bool) -> str:
    """How the image scores are distributed, and the threshold.

    Args:
        normal, anomalous: scores in [0, 1] by label; unlabelled ones as `normal`.
        threshold: of the image score.
    """
    figure, axes = _axes("image score", "images")
    edges = np.linspace(0, 1, BINS + 1)
    heights = [np.histogram(scores, edges)[0] for scores in (normal, anomalous)]
    top = max(int(np.max(heights)), 1)
    axes.set(xlim=(0, 1), ylim=(0, top * 1.08))
    _ticks(axes, [0, 0.5, 1], sorted({0, top // 2, top}))
    colour = IMAGE_LEVEL if unlabelled else NORMAL
    axes.stairs(heights[0], edges, fill=True, color=colour, alpha=0.55, linewidth=0, clip_on=False)
    if len(anomalous):  # an outline over an area: told apart without colours too
        axes.stairs(heights[1], edges, color=ANOMALOUS, linewidth=1.8, clip_on=False)
    _line(axes, (np.full(2, min(threshold, 1.0)), np.array([0.0, top * 1.08])), INK, 1.2, (0, (4, 2)))
    return _svg(figure, "histogram of the image scores")


def _curves(
    figure: Figure, axes: Axes, image: Curve | None, pixel: Curve | None, chosen: tuple[float, float] | None, title: str
) -> str:
    if pixel is not None:
        _line(axes, pixel, PIXEL_LEVEL, 1.8, (0, (5, 2)))
    if image is not None:
        _line(axes, image, IMAGE_LEVEL, 1.8, "solid", steps=title != "ROC curve")
    if chosen is not None:
        _dot(axes, *chosen)
    return _svg(figure, title)


def _line(axes: Axes, curve: Curve, colour: str, width: float, style: object, steps: bool = False) -> None:
    x, y = _thinned(*curve)
    if steps:  # precision at a recall is that of the next point, as average precision counts it
        x, y = np.repeat(x, 2)[1:-1], np.repeat(y, 2)[2:]
    axes.plot(x, y, color=colour, linewidth=width, linestyle=style, clip_on=False, dash_capstyle="butt")  # type: ignore[arg-type]


def _dot(axes: Axes, x: float, y: float) -> None:
    """A filled circle, drawn as a path: markers need definitions with names, which several charts would share."""
    turn = np.linspace(0, 2 * np.pi, 17)
    width, height = DOT_RADIUS / (WIDTH * PLACE[2]), DOT_RADIUS / (HEIGHT * PLACE[3])
    axes.fill(x + width * np.cos(turn), y + height * np.sin(turn), color=INK, clip_on=False, zorder=3)


def _thinned(x: np.ndarray, y: np.ndarray) -> Curve:
    """At most `MOST_POINTS` of the points, evenly along the curve, its ends among them."""
    if len(x) <= MOST_POINTS:
        return x, y
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    chosen = np.unique(np.searchsorted(way, np.linspace(0, way[-1], MOST_POINTS)).clip(max=len(x) - 1))
    return x[chosen], y[chosen]


def _unit_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = _axes(x_label, y_label)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _ticks(axes, [0, 0.5, 1], [0, 0.5, 1])
    return figure, axes


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        axes = figure.add_axes(PLACE)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.tick_params(left=False, bottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.patch.set_visible(False)
        figure.patch.set_visible(False)
    return figure, axes


def _ticks(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Labels at these values, and thin lines across the chart."""
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_yticks(y, [f"{value:g}" for value in y])
    for value in x:
        axes.plot([value, value], axes.get_ylim(), color=GRID, linewidth=0.7, clip_on=False, zorder=0)
    for value in y:
        axes.plot(axes.get_xlim(), [value, value], color=GRID, linewidth=0.7, clip_on=False, zorder=0)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an <svg> element for a page: without names, fonts and colours of its own."""
    buffer = io.StringIO()
    with rc_context(_STYLE):
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "defs"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.pop("id", None)
        element.text = (element.text or "").strip()
        element.tail = ""
        if "d" in element.attrib:
            element.set("d", _shorter(element.attrib["d"]))
        if element.tag == "text":
            _plain_text(element)
        if "style" in element.attrib:
            element.set("style", element.attrib["style"].replace(": ", ":").replace("; ", ";"))
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r"<g ?/>", "", re.sub(r"</?g>", "", text))
    for colour, name in _COLOURS.items():
        text = text.replace(colour, name)
    return text


def _plain_text(element: ElementTree.Element) -> None:
    element.set("style", re.sub(r" ?font(-family)?: [^;]*('|serif)[^;]*;?", "", element.attrib["style"]))
    element.set("style", re.sub(r"font-size: [\d.]+px;? ?", "", element.attrib["style"]))
    for name in ("x", "y"):
        element.set(name, _shorter(element.attrib[name]))
    rotation = element.attrib.get("transform", "")
    if rotation.startswith("rotate(-0 "):
        del element.attrib["transform"]
    else:
        element.set("transform", _shorter(rotation))


def _shorter(numbers: str) -> str:
    """Coordinates to a tenth of a point."""
    rounded = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), numbers)
    return (
        re.sub(r"\s*([A-Za-z])\s*", r"\1", rounded.replace("\n", " ")).strip() if "rotate" not in numbers else rounded
    )

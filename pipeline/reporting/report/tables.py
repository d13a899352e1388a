"""The tables of the report: metrics in percent with their intervals, and why there is none where there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generic_dataset_json.names import DatasetFacts
from metrics import PAPER_METRICS, REGISTRY
from pipeline.evaluation.results import Evaluation
from pipeline.reporting.outcomes import outcome
from pipeline.reporting.predictions import PredictionRow

NAMES = {metric.name: metric.heading for metric in REGISTRY}
"""Headings, below one that says whether images or pixels are meant."""

PAPER_COLUMNS = PAPER_METRICS
DECISION_COLUMNS = tuple(name for name in NAMES if name not in PAPER_METRICS)


@dataclass(frozen=True)
class Cell:
    """One number. `value`, `low` and `high` in percent; `reason` says why there is no value."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table. `kind`: "class", "mean", "paper" or "difference"; `anchor`: the class's place on the page."""

    name: str
    kind: str
    cells: tuple[Cell, ...]
    anchor: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Attributes:
    groups: heading and number of columns of each group.
    headings: one for each column.
    """

    groups: tuple[tuple[str, int], ...]
    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def metric_table(
    evaluation: Evaluation,
    level: str,
    columns: Sequence[str],
    papers: Sequence[DatasetFacts] = (),
    paper_model: str = "",
    comparable: bool = False,
) -> Table:
    """A row for each class, the mean, and the paper's own figures.

    Args:
        evaluation: metrics in percent.
        level: as `evaluation.evaluate` takes it.
        columns: names of metrics, those of one level side by side.
        papers: the datasets of the paper that were tested, or may have been.
        paper_model: what the paper's figures were measured with.
        comparable: whether this run is of that model, so that a difference means something.
    """
    by_class = rows_by_class(evaluation.predictions)
    rows = []
    for number, (name, values) in enumerate(evaluation.classes.items()):
        reasons = [
            _reason(column, level, by_class.get(name, []), evaluation.counts.get(name, {})) for column in columns
        ]
        intervals = evaluation.intervals.get(name, {})
        rows.append(Row(name, "class", _cells(columns, values, intervals, reasons), class_anchor(number)))
    if len(rows) > 1:
        none = ["no class has it"] * len(columns)
        rows.append(Row("mean", "mean", _cells(columns, evaluation.mean, evaluation.mean_intervals, none)))
    for facts in papers:
        figures = [getattr(facts, column, None) for column in columns]
        cells = tuple(Cell(figure, reason="" if figure is not None else "not in the paper") for figure in figures)
        rows.append(Row(f"the paper, {facts.paper_name}", "paper", cells, detail=paper_model))
        if comparable and len(papers) == 1:
            rows.append(Row("this run − the paper", "difference", _differences(columns, evaluation.mean, figures)))
    levels = [column.partition("_")[0] for column in columns]
    return Table(
        tuple((name, levels.count(name)) for name in dict.fromkeys(levels)),
        tuple(NAMES[column] for column in columns),
        tuple(rows),
    )


def rows_by_class(predictions: Sequence[PredictionRow]) -> dict[str, list[PredictionRow]]:
    """The rows of each class, in their order."""
    classes: dict[str, list[PredictionRow]] = {}
    for row in predictions:
        classes.setdefault(row.cls_name, []).append(row)
    return classes


def outcome_counts(rows: Sequence[PredictionRow]) -> dict[str, int]:
    """How many images have each of the outcomes that occur; see `outcomes.outcome`."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.decision is not None:
            name = outcome(row.label, row.decision.called)
            counts[name] = counts.get(name, 0) + 1
    return counts


def class_anchor(number: int) -> str:
    """The place of the class with this number on the page."""
    return f"class-{number}"


def _cells(
    columns: Sequence[str],
    values: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float] | None],
    reasons: Sequence[str],
) -> tuple[Cell, ...]:
    cells = []
    for column, reason in zip(columns, reasons, strict=True):
        value, interval = values.get(column), intervals.get(column)
        if value is None:
            cells.append(Cell(None, reason=reason))
        else:
            cells.append(Cell(value, *(interval or (None, None))))
    return tuple(cells)


def _differences(
    columns: Sequence[str], ours: Mapping[str, float | None], theirs: Sequence[float | None]
) -> tuple[Cell, ...]:
    pairs = [(ours.get(column), figure) for column, figure in zip(columns, theirs, strict=True)]
    return tuple(
        Cell(own - figure) if own is not None and figure is not None else Cell(None, reason="not in both")
        for own, figure in pairs
    )


def _reason(column: str, level: str, rows: Sequence[PredictionRow], counts: Mapping[str, int]) -> str:
    """Why a class has no value of this metric."""
    if not level.startswith(column.partition("_")[0]) and level != "image-pixel-level":
        return f"left out by --metrics {level}"
    labels = {row.label for row in rows}
    if column.startswith("image"):
        return "one label only" if len(labels) < 2 else "undefined"
    if 1 not in labels:
        return "no anomalous images"
    return "no masks" if not counts.get("with_mask") else "undefined"

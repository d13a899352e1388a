"""report.html: what a run found, on one page that opens anywhere and fetches nothing."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from AnomalyCLIP_lib.decisions import ANOMALOUS, NORMAL, Thresholds
from generic_dataset_json.names import DatasetFacts
from pipeline.evaluation.results import Evaluation
from pipeline.reporting.outcomes import DECISIONS, OUTCOMES
from pipeline.reporting.predictions import PredictionRow
from pipeline.reporting.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    curve_chart,
    image_curves,
    score_histogram,
)
from pipeline.reporting.report.gallery import Card, Gallery, by_error
from pipeline.reporting.report.tables import (
    DECISION_COLUMNS,
    PAPER_COLUMNS,
    class_anchor,
    metric_table,
    outcome_counts,
    rows_by_class,
)

_TEMPLATES = Path(__file__).parent / "template"


@dataclass(frozen=True)
class Metrics:
    """What a report needs of a run on a dataset, where images have labels.

    Attributes:
        evaluation: from `evaluation.evaluate`.
        level: of the metrics, as `evaluate` takes it.
        papers: the paper's datasets that the label of this one means.
        paper_model: what the paper's figures were measured with.
        comparable: whether this run is of that model.
    """

    evaluation: Evaluation
    level: str
    papers: Sequence[DatasetFacts] = ()
    paper_model: str = ""
    comparable: bool = False


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: of the dataset, or of the pictures.
        model: what scored the images, for the user.
        thresholds: what they are called anomalous from.
        predictions: a row per image.
        gallery: has seen the images; None: no gallery.
        settings: plain types, shown in their order.
        command: the command line that makes this run again; empty: not shown.
        notices: sentences that the reader has to see first.
        metrics: None for pictures without labels.
    """

    title: str
    model: str
    thresholds: Thresholds
    predictions: Sequence[PredictionRow]
    gallery: Gallery | None
    settings: Mapping[str, Any]
    command: str = ""
    notices: Sequence[str] = ()
    metrics: Metrics | None = None


@dataclass(frozen=True)
class _Charts:
    name: str
    anchor: str
    detail: str
    charts: list[Chart] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def render(report: Report) -> str:
    """The page as HTML text: every name, label and setting escaped, the same text for the same content."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    metrics = report.metrics
    cards = by_error(report.gallery.cards) if report.gallery else []
    evaluation = metrics.evaluation if metrics else None
    names = OUTCOMES if metrics else DECISIONS
    counts = outcome_counts(report.predictions)
    shown = [card.outcome for card in cards]
    classes = list(evaluation.classes) if evaluation else []
    parts = [("summary", "At a glance")]
    parts += [("metrics", "Metrics")] if metrics else []
    parts += [("curves", "Curves and scores" if metrics else "Scores")]
    parts += [("gallery", "Images")] if cards else []
    parts += [("settings", "Settings")]
    return environment.get_template("page.html").render(
        style=(_TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=(_TEMPLATES / "page.js").read_text(encoding="utf-8"),
        title=report.title,
        model=report.model,
        thresholds=report.thresholds,
        images=len(report.predictions),
        classes=classes,
        notices=report.notices,
        parts=parts,
        tiles=_tiles(report),
        outcomes=[(key, name, counts.get(key, 0)) for key, name in names.items()],
        tables=_tables(metrics) if metrics else [],
        with_intervals=bool(evaluation and any(evaluation.mean_intervals.values())),
        has_paper=bool(metrics and metrics.papers),
        paper_model=metrics.paper_model if metrics else "",
        comparable=bool(metrics and metrics.comparable),
        charts=_charts(report),
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        with_pixel_curves=bool(evaluation and any(evaluation.pixel_curves.values())),
        cards=[_card_fields(card, names) for card in cards],
        left_out=sum(not row.error for row in report.predictions) - len(cards) if report.gallery else 0,
        order=(
            "Sorted by how far the score lies on the wrong side of the threshold."
            if metrics
            else "Sorted by score, the most suspicious first."
        ),
        gallery_title="Images, the worst mistakes first" if metrics else "Images",
        gallery_classes=sorted({card.class_name for card in cards}),
        gallery_outcomes=[(key, name, shown.count(key)) for key, name in names.items()],
        command=report.command,
        settings=list(_flat(report.settings)),
    )


def _tiles(report: Report) -> list[dict[str, str]]:
    """The four figures of the paper's table for datasets; what the scores are for pictures."""
    if report.metrics is None:
        scores = [row.decision.anomaly_score for row in report.predictions if row.decision]
        extremes = [("highest score", max(scores)), ("lowest score", min(scores))] if scores else []
        return [{"what": name, "value": f"{score:.3f}", "detail": ""} for name, score in extremes]
    evaluation = report.metrics.evaluation
    what = {
        "pixel_auroc": "pixel AUROC",
        "pixel_aupro": "pixel AUPRO",
        "image_auroc": "image AUROC",
        "image_ap": "image AP",
    }
    tiles = []
    for name, title in what.items():
        value, interval = evaluation.mean.get(name), evaluation.mean_intervals.get(name)
        detail = "no class has it" if value is None else f"mean of {len(evaluation.classes)} classes"
        if len(evaluation.classes) == 1 and value is not None:
            detail = ""
        if value is not None and interval is not None:
            detail += f"{', ' if detail else ''}95 % {interval[0]:.1f} – {interval[1]:.1f}"
        tiles.append({"what": title, "value": "–" if value is None else f"{value:.1f}", "detail": detail})
    return tiles


def _tables(metrics: Metrics) -> list[tuple[str, Any]]:
    return [
        (
            "The paper's four metrics",
            metric_table(
                metrics.evaluation,
                metrics.level,
                PAPER_COLUMNS,
                metrics.papers,
                metrics.paper_model,
                metrics.comparable,
            ),
        ),
        (
            "Decisions: F1, precision and recall at the thresholds, and the best F1 that any threshold gives",
            metric_table(metrics.evaluation, metrics.level, DECISION_COLUMNS),
        ),
    ]


def _charts(report: Report) -> list[_Charts]:
    threshold = report.thresholds.image.value
    if report.metrics is None:
        scores = [row.decision.anomaly_score for row in report.predictions if row.decision]
        return [_Charts("", "", "", [score_histogram("scores of all images", scores, [], threshold, unlabelled=True)])]
    evaluation = report.metrics.evaluation
    by_class = rows_by_class(report.predictions)
    return [
        _class_charts(name, class_anchor(number), by_class.get(name, []), values, evaluation, threshold)
        for number, (name, values) in enumerate(evaluation.classes.items())
    ]


def _class_charts(
    name: str,
    anchor: str,
    rows: Sequence[PredictionRow],
    values: Mapping[str, float | None],
    evaluation: Evaluation,
    threshold: float,
) -> _Charts:
    found = [(row.label or 0, row.decision.anomaly_score) for row in rows if row.decision]
    normal = [score for label, score in found if not label]
    anomalous = [score for label, score in found if label]
    part = _Charts(name, anchor, f"{len(normal)} normal, {len(anomalous)} anomalous")
    image, pixel = image_curves(*zip(*found, strict=True)) if found else None, evaluation.pixel_curves.get(name)
    false_positives, hits = sum(score >= threshold for score in normal), sum(score >= threshold for score in anomalous)
    if image is not None or pixel is not None:
        roc, precision_recall = image or (None, None)
        chosen = (false_positives / len(normal), hits / len(anomalous)) if normal and anomalous else None
        called = hits + false_positives
        part.charts.append(
            curve_chart(
                "ROC curve",
                f"ROC{_areas('AUROC', values, 'image_auroc', 'pixel_auroc')}",
                "false positive rate",
                "true positive rate",
                roc,
                pixel and (pixel.false_positive_rate, pixel.true_positive_rate),
                chosen,
            )
        )
        part.charts.append(
            curve_chart(
                "precision-recall curve",
                f"precision and recall{_areas('AP', values, 'image_ap', 'pixel_ap')}",
                "recall",
                "precision",
                precision_recall,
                pixel and (pixel.true_positive_rate[1:], pixel.precision[1:]),  # the first says nothing
                (chosen[1], hits / called) if chosen is not None and called else None,
                steps=True,
            )
        )
    if image is None:
        only = ANOMALOUS if anomalous else NORMAL
        part.remarks.append(f"All images are {only}, so there are no curves at image level.")
    part.charts.append(score_histogram("image scores", normal, anomalous, threshold, unlabelled=False))
    return part


def _areas(title: str, values: Mapping[str, float | None], image: str, pixel: str) -> str:
    """What the areas under the two curves of a chart are, percent."""
    known = [(level, values.get(name)) for level, name in (("image", image), ("pixel", pixel))]
    parts = [f"{level} {value:.1f}" for level, value in known if value is not None]
    return f"; {title}: {', '.join(parts)}" if parts else ""


def _card_fields(card: Card, names: Mapping[str, str]) -> dict[str, Any]:
    thumbnails = card.thumbnails
    return {
        "name": card.name,
        "class_name": card.class_name,
        "outcome": card.outcome,
        "outcome_name": names[card.outcome],
        "score": f"{card.decision.anomaly_score:.3f}",
        "decision": card.decision.called,
        "label": "" if card.label is None else ANOMALOUS if card.label else NORMAL,
        "width": thumbnails.size[0],
        "height": thumbnails.size[1],
        "picture": _base64(thumbnails.picture),
        "heat_map": _base64(thumbnails.heat_map) if thumbnails.heat_map is not None else "",
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values as text; those of an inner table with its name in front."""
    rows = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}: ")
        else:
            rows.append((f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows

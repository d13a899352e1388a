"""metrics.json and metrics.csv: the metrics of a run with their intervals, and what they were counted from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.files import atomic_write
from metrics import ALL_METRICS
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.streaming_metrics import COUNTS, Metrics
from pipeline.reporting.predictions import csv_lines, write_predictions
from pipeline.reporting.run_folder import METRICS, METRICS_TABLE, PREDICTIONS

MEAN, TOTAL = "mean", "total"
CSV_COLUMNS = (
    "cls_name",
    *ALL_METRICS,
    *(f"{name}_{end}" for name in ALL_METRICS for end in ("low", "high")),
    *COUNTS,
)


def write_results(evaluation: Evaluation, settings: Mapping[str, Any], folder: Path) -> None:
    """Write metrics.json, metrics.csv and predictions.csv into `folder`, each atomically."""
    with atomic_write(folder / METRICS) as temporary:
        text = json.dumps(metrics_content(evaluation, settings), indent=4, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomic_write(folder / METRICS_TABLE) as temporary:
        temporary.write_text(metrics_table(evaluation), encoding="utf-8", newline="")
    write_predictions(evaluation.predictions, folder / PREDICTIONS)


def metrics_content(evaluation: Evaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json holds: plain types, percent unrounded, None where undefined."""
    return {
        "settings": dict(settings),
        "classes": evaluation.classes,
        "mean": evaluation.mean,
        "intervals": {
            "classes": {name: _lists(row) for name, row in evaluation.intervals.items()},
            "mean": _lists(evaluation.mean_intervals),
        },
        "counts": {**evaluation.counts, TOTAL: evaluation.total_counts()},
    }


def metrics_table(evaluation: Evaluation) -> str:
    """metrics.csv: a row a class and the mean, whose counts are sums; what is undefined is empty."""
    rows = [
        _row(name, values, evaluation.intervals[name], evaluation.counts[name])
        for name, values in evaluation.classes.items()
    ]
    rows.append(_row(MEAN, evaluation.mean, evaluation.mean_intervals, evaluation.total_counts()))
    return csv_lines([CSV_COLUMNS, *rows])


def _row(
    name: str, values: Metrics, intervals: Mapping[str, tuple[float, float] | None], counts: Mapping[str, int]
) -> list[str]:
    ends = [end for metric in ALL_METRICS for end in intervals.get(metric) or (None, None)]
    numbers = [*(values.get(metric) for metric in ALL_METRICS), *ends]
    return [name, *("" if value is None else repr(value) for value in numbers), *(str(counts[key]) for key in COUNTS)]


def _lists(intervals: Mapping[str, tuple[float, float] | None]) -> dict[str, list[float] | None]:
    return {name: None if ends is None else list(ends) for name, ends in intervals.items()}

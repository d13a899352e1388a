"""metrics.json and metrics.csv: the metrics of a run with their intervals, and what they were counted from."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from metrics import ALL_METRICS
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.streaming_metrics import COUNTS, Metrics
from pipeline.output_folder import METRICS, METRICS_TABLE, PREDICTIONS, OutputFolder
from pipeline.reporting.predictions import COLUMNS, csv_lines

CLASS, MEAN = "class", "mean"  # kinds of rows: a class may have any name
CSV_COLUMNS = (
    "row",
    "cls_name",
    *ALL_METRICS,
    *(f"{name}_{end}" for name in ALL_METRICS for end in ("low", "high")),
    *COUNTS,
)


def write_results(
    evaluation: Evaluation,
    settings: Mapping[str, Any],
    folder: OutputFolder,
    files_of: Callable[[int], tuple[str, str]],
) -> None:
    """Write metrics.json, metrics.csv and predictions.csv into `folder`, each atomically.

    Args:
        files_of: the names of the picture and the map of the image with a number.
    """
    content = metrics_content(evaluation, settings)
    folder.write_text(METRICS, json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n")
    folder.write_text(METRICS_TABLE, metrics_table(evaluation))
    rows = []
    for position, row in enumerate(evaluation.predictions):
        picture, anomaly_map = ("", "") if row.error else files_of(position)
        rows.append(replace(row, picture=picture, map=anomaly_map).cells())
    folder.write_text(PREDICTIONS, csv_lines([COLUMNS, *rows]))


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
        "counts": {"classes": evaluation.counts, "total": evaluation.total_counts()},
    }


def metrics_table(evaluation: Evaluation) -> str:
    """metrics.csv: a row a class and the mean, whose counts are sums; what is undefined is empty."""
    rows = [
        _row(CLASS, name, values, evaluation.intervals[name], evaluation.counts[name])
        for name, values in evaluation.classes.items()
    ]
    rows.append(_row(MEAN, "", evaluation.mean, evaluation.mean_intervals, evaluation.total_counts()))
    return csv_lines([CSV_COLUMNS, *rows])


def _row(
    kind: str,
    name: str,
    values: Metrics,
    intervals: Mapping[str, tuple[float, float] | None],
    counts: Mapping[str, int],
) -> list[str]:
    ends = [end for metric in ALL_METRICS for end in intervals.get(metric) or (None, None)]
    numbers = ["" if number is None else repr(number) for number in (*(values.get(n) for n in ALL_METRICS), *ends)]
    return [kind, name, *numbers, *(str(counts[key]) for key in COUNTS)]


def _lists(intervals: Mapping[str, tuple[float, float] | None]) -> dict[str, list[float] | None]:
    return {name: None if ends is None else list(ends) for name, ends in intervals.items()}

"""metrics.json and metrics.csv hold what an evaluation found, in numbers and in rows."""

import csv
import io
import json

import numpy as np
import pytest

from metrics import ALL_METRICS
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.streaming_metrics import COUNTS
from pipeline.output_folder import OutputFolder
from pipeline.reporting.metrics_files import CSV_COLUMNS, metrics_content, metrics_table, write_results


@pytest.fixture
def evaluation():
    """Two classes, the first without pixel metrics."""
    values = {name: 10.0 + number / 3 for number, name in enumerate(ALL_METRICS)}
    images_only = {name: None if name.startswith("pixel") else value + 1 for name, value in values.items()}
    classes = {"a, b": images_only, "c": values}
    intervals = {
        key: {name: None if value is None else (value - 1, value + 2) for name, value in row.items()}
        for key, row in {**classes, "mean": values}.items()
    }
    counts = {
        key: {name: number * factor for number, name in enumerate(COUNTS)} for key, factor in (("a, b", 1), ("c", 10))
    }
    mean_intervals = intervals.pop("mean")
    return Evaluation(classes, values, [], intervals, mean_intervals, counts, {"a, b": None, "c": None})


def test_json(evaluation):
    content = json.loads(json.dumps(metrics_content(evaluation, {"seed": 1}), allow_nan=False))
    assert set(content) == {"settings", "classes", "mean", "intervals", "counts"}
    assert content["classes"] == evaluation.classes and content["mean"] == evaluation.mean
    assert content["intervals"]["classes"]["a, b"]["pixel_ap"] is None
    assert content["intervals"]["mean"]["pixel_auroc"] == [9, 12]
    assert content["counts"]["total"] == {name: 11 * number for number, name in enumerate(COUNTS)}


def test_csv(evaluation):
    rows = list(csv.DictReader(io.StringIO(metrics_table(evaluation))))
    assert tuple(rows[0]) == CSV_COLUMNS and len(CSV_COLUMNS) == 2 + 3 * len(ALL_METRICS) + len(COUNTS)
    assert [(row["row"], row["cls_name"]) for row in rows] == [("class", "a, b"), ("class", "c"), ("mean", "")]
    assert rows[0]["pixel_ap"] == rows[0]["pixel_ap_low"] == rows[0]["pixel_ap_high"] == ""
    for row, values in zip(rows[1:], (evaluation.classes["c"], evaluation.mean), strict=True):
        for name in ALL_METRICS:
            assert float(row[name]) == values[name]  # unrounded
            assert (float(row[f"{name}_low"]), float(row[f"{name}_high"])) == (values[name] - 1, values[name] + 2)
    assert [row["pixels"] for row in rows] == ["7", "70", "77"]


def test_files_are_written_or_left_as_they_were(evaluation, tmp_path):
    folder = OutputFolder(tmp_path)
    with folder.held():
        write_results(evaluation, {}, folder, lambda _: ("", ""))
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["metrics.csv", "metrics.json", "predictions.csv"]
    before = (tmp_path / "metrics.json").read_bytes()
    evaluation.mean["pixel_ap"] = np.nan
    with folder.held(), pytest.raises(ValueError, match="JSON"):
        write_results(evaluation, {}, folder, lambda _: ("", ""))
    assert (tmp_path / "metrics.json").read_bytes() == before and len(list(tmp_path.glob("[!.]*"))) == 3

"""predictions.csv: a row for every image of a run."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from AnomalyCLIP_lib.decisions import Decision

COLUMNS = (
    "image_path",
    "cls_name",
    "label",
    "anomaly_score",
    "decision",
    "threshold",
    "threshold_source",
    "map_max",
    "area_fraction",
    "regions",
    "picture",
    "map",
    "error",
)


@dataclass(frozen=True)
class PredictionRow:
    """One image of a run.

    Attributes:
        image_path: relative to the dataset, or as it was given.
        cls_name, label: of a dataset's image (0 normal, 1 anomalous); empty and None otherwise.
        decision: None where the image could not be read.
        error: the sentence that says why; else empty.
        picture, map: the files written for it, relative to the run's folder; empty where there is none.
    """

    image_path: str
    cls_name: str = ""
    label: int | None = None
    decision: Decision | None = None
    error: str = ""
    picture: str = ""
    map: str = ""

    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`; numbers in full precision, regions as JSON, what does not apply empty."""
        label = "" if self.label is None else str(self.label)
        decision = self.decision
        if decision is None:
            return (self.image_path, self.cls_name, label, *[""] * 9, self.error)
        threshold = decision.thresholds.image
        return (
            self.image_path,
            self.cls_name,
            label,
            repr(decision.anomaly_score),
            decision.called,
            repr(threshold.value),
            threshold.source,
            *("" if value is None else repr(value) for value in (decision.map_max, decision.area_fraction)),
            "" if decision.regions is None else json.dumps(decision.regions),
            self.picture,
            self.map,
            self.error,
        )


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as CSV text that can be encoded; see `neutral` for cells that a spreadsheet would compute."""
    buffer = io.StringIO()
    plain, quoted = (csv.writer(buffer, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        cells = [neutral(cell) for cell in row]
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)  # Python < 3.13 does not quote \r
    return printable(buffer.getvalue())


def neutral(cell: str) -> str:
    """The cell, with an apostrophe before what a spreadsheet would take for a formula: =, +, -, @, tab or return.

    Undone by removing one apostrophe where one of these follows it.
    """
    if not cell.lstrip("'").startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def printable(text: str) -> str:
    """The text with \\udc80 to \\udcff written out: bytes of a file's name that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()

"""The files that the web page offers: a table of all pictures, one picture as drawn, one map."""

import io
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from PIL import Image

from AnomalyCLIP_lib.decisions import Thresholds
from AnomalyCLIP_lib.errors import InputError
from pipeline.reporting.image_files import MAP_SUFFIX
from pipeline.reporting.pictures import COMPRESSION, outline, overlay
from pipeline.reporting.predictions import COLUMNS, PredictionRow, csv_lines
from pipeline.web.scoring import Refused, Scored, read_upload

TABLE_NAME = "predictions.csv"


def table(results: Sequence[Scored | Refused], thresholds: Thresholds) -> bytes:
    """All pictures in the columns of predictions.csv, with these thresholds; refused ones with their sentence."""
    rows = [
        PredictionRow(result.name, error=result.sentence)
        if isinstance(result, Refused)
        else PredictionRow(result.name, decision=result.decision(thresholds))
        for result in results
    ]
    return csv_lines([COLUMNS, *(row.cells() for row in rows)]).encode()


def heat_map(scored: Scored, pixel_threshold: float | None, opacity: float) -> tuple[str, bytes]:
    """Name and content of a PNG as large as the picture itself; pixel_threshold None: without the outline.

    Raises:
        InputError: the upload has been deleted since.
    """
    if not scored.path.is_file():
        raise InputError(f"{scored.name} has been deleted from the server in the meantime; give it once more.")
    image = read_upload(scored.path)
    values = scored.prediction.values(scored.size)
    drawn = overlay(image, values, opacity)
    if pixel_threshold is not None:
        drawn = outline(drawn, values, pixel_threshold)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, format="PNG", compress_level=COMPRESSION)
    return f"{PurePath(scored.name).stem}_heat_map.png", buffer.getvalue()


def anomaly_map(scored: Scored) -> tuple[str, bytes]:
    """Name and content of the smoothed map as .npy, (S, S) float32."""
    buffer = io.BytesIO()
    np.save(buffer, scored.prediction.anomaly_map.numpy())
    return f"{PurePath(scored.name).stem}{MAP_SUFFIX}", buffer.getvalue()

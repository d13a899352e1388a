"""Results as HTML. Everything that comes from outside, file names above all, is escaped."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from PIL import Image

from AnomalyCLIP_lib.decisions import ANOMALOUS, NORMAL, Threshold, Thresholds
from AnomalyCLIP_lib.detector import Detector
from pipeline.reporting.pictures import COLOUR_MAP, outline, overlay
from pipeline.web.scoring import Refused, Scored

JPEG_QUALITY = 92
MOST_REGIONS_LISTED = 8
LEGEND_STEPS = 16
EMPTY = '<p class="empty">The results appear here: give a picture, or click a sample.</p>'


def picture(scored: Scored, pixel_threshold: float | None, opacity: float) -> str:
    """The heat map over the picture, with a scale; pixel_threshold None: without the outline."""
    values = scored.values()
    drawn = overlay(Image.fromarray(scored.displayed), values, opacity)
    if pixel_threshold is not None:
        drawn = outline(drawn, values, pixel_threshold)
    height, width = drawn.shape[:2]
    description = f"Heat map of {scored.name}" + ("" if pixel_threshold is None else ", anomalous regions outlined")
    return (
        f'<figure class="shown"><img src="{_data_uri(drawn)}" width="{width}" height="{height}" decoding="sync" '
        f'alt="{escape(description)}"><figcaption>{_legend(pixel_threshold)}</figcaption></figure>'
    )


def verdict(scored: Scored, thresholds: Thresholds) -> str:
    """Score, decision, what both rest upon, and the regions."""
    decision = scored.decision(thresholds)
    assert decision.map_max is not None and decision.area_fraction is not None and decision.regions is not None
    anomalous = decision.called == ANOMALOUS
    width, height = scored.size
    boxes = "".join(f"<li>x {x}, y {y}, {w} × {h} pixels</li>" for x, y, w, h in decision.regions[:MOST_REGIONS_LISTED])
    more = len(decision.regions) - MOST_REGIONS_LISTED
    listed = f"<details><summary>where the regions are</summary><ul>{boxes}" + (
        f"<li>and {more} smaller</li></ul></details>" if more > 0 else "</ul></details>"
    )
    if decision.regions:
        area = (
            f"<strong>{_share(decision.area_fraction)}</strong> of its {width} × {height} pixels, in "
            f"<strong>{_regions(len(decision.regions))}</strong>, reach"
        )
    else:
        area = f"<strong>None</strong> of its {width} × {height} pixels reaches"
    return (
        f'<div class="verdict"><h2>{_pill(decision.called)} <span class="name">{escape(scored.name)}</span></h2>'
        f"<p>The score <strong>{scored.anomaly_score:.4f}</strong> "
        f"{'reaches' if anomalous else 'stays below'} the image threshold {_threshold(thresholds.image)}.</p>"
        f"<p>{area} the pixel threshold {_threshold(thresholds.pixel)}; the largest value of the map is "
        f"{decision.map_max:.3f}.</p>{listed if decision.regions else ''}</div>"
    )


def overview(scored: Sequence[Scored], thresholds: Thresholds) -> str:
    """A table of all pictures; empty where there is one picture only."""
    if len(scored) < 2:
        return ""
    decisions = [one.called(thresholds) for one in scored]
    counts = Counter(decisions)
    rows = "".join(
        f'<tr><td class="name">{escape(one.name)}</td><td>{one.anomaly_score:.4f}</td><td>{_pill(decision)}</td></tr>'
        for one, decision in zip(scored, decisions, strict=True)
    )
    return (
        f"<table class='overview'><caption>{counts[ANOMALOUS]} anomalous, {counts[NORMAL]} normal at the image "
        f"threshold {thresholds.image.value:.4g}</caption><thead><tr><th>picture</th><th>score</th><th>decision</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def problems(refused: Sequence[Refused], more: Sequence[str] = ()) -> str:
    """The sentences about what could not be scored; empty where all is well."""
    sentences = [*more, *(one.sentence for one in refused)]
    if not sentences:
        return ""
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="problems" role="alert">{listed}</ul>'


def introduction(detector: Detector, reason: str) -> str:
    """Title, what the page does, and which model does it and why."""
    told = "\n".join([f"{detector.describe()} ({reason})", *detector.provenance.notices])
    checkpoint = detector.provenance.checkpoint
    if checkpoint is not None:  # visitors need not know the folders of this machine
        told = told.replace(str(checkpoint.path), checkpoint.path.name)
    described = escape(told).replace("\n", "<br>")
    return (
        "<div class='intro'><h1>AnomalyCLIP: find what is wrong in a picture</h1>"
        "<p>Give a picture of a thing, and the model says whether it looks damaged and where, though it has never "
        "seen a thing of this kind.</p>"
        f"<p class='model'><strong>Model:</strong> {described}</p></div>"
    )


def thumbnail(scored: Scored, side: int) -> Image.Image:
    """The picture itself, small, for choosing."""
    image = Image.fromarray(scored.displayed)
    image.thumbnail((side, side))
    return image


def _pill(decision: str) -> str:
    return f'<span class="decision {decision}">{decision}</span>'


def _threshold(threshold: Threshold) -> str:
    return f'{threshold.value:.4g} <span class="source">({escape(threshold.source)})</span>'


def _share(fraction: float) -> str:
    if 0 < fraction < 0.0005:
        return "less than 0.1 %"
    return f"{100 * fraction:.1f} %"


def _regions(count: int) -> str:
    return "1 region" if count == 1 else f"{count} regions"


def _legend(pixel_threshold: float | None) -> str:
    """The scale of the heat map, with the pixel threshold on it."""
    greys = np.linspace(0, 255, LEGEND_STEPS).round().astype(np.uint8)[None]
    colours = cv2.applyColorMap(greys, COLOUR_MAP)[0, :, ::-1]
    gradient = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours.tolist())
    mark = "" if pixel_threshold is None else f'<i style="left: {100 * min(pixel_threshold, 1):.1f}%"></i>'
    return (
        f'<span>0 normal</span><span class="scale" style="background: linear-gradient(to right, {gradient})">{mark}'
        "</span><span>1 anomalous</span>"
    )


def _data_uri(drawn: np.ndarray) -> str:
    """The picture inside the address, so that moving a slider leaves no files behind."""
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

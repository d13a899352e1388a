"""The pixel metrics and the Gaussian filter: time, memory and accuracy."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

import metrics
from AnomalyCLIP_lib.scoring import smooth
from benchmarks import naive
from benchmarks.error_bounds import error_bounds
from benchmarks.processes import in_a_process, peak_memory
from benchmarks.table import Row
from benchmarks.timing import Spent, measured, pair
from metrics import metrics_of
from pipeline.evaluation.pixel_histogram import BITS, PixelHistogram, count_pixels

GRID = 37  # patches a side at 518 pixels
SIGMA = 4.0


def draw(index: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask (side, side) of bool with some regions and a smoothed softmax map of float32, crowded at 0 and 1."""
    generator = torch.Generator().manual_seed(index)
    noise = torch.randn(3, 1, GRID // 3, GRID // 3, generator=generator)
    coarse = F.interpolate(noise, (GRID, GRID), mode="bilinear", align_corners=False)
    mask = F.interpolate(coarse[:1], (side, side), mode="bilinear", align_corners=False)[0, 0] > 1.1
    logits = 4 * coarse[:1] + 10 * coarse[1:2] + 3 * torch.randn(coarse[:1].shape, generator=generator) - 6
    probabilities = F.interpolate(logits.sigmoid(), (side, side), mode="bilinear", align_corners=False)[0, 0]
    return mask.numpy(), smooth(probabilities[None], SIGMA * side / 518)[0].numpy()


def gaussian(side: int, repetitions: int) -> Row:
    """Eight maps through scipy's filter and through ours."""
    maps = torch.rand(8, side, side, generator=torch.Generator().manual_seed(0))
    return pair(
        f"Gaussian filter, 8 maps of {side} x {side}",
        lambda: naive.smooth(maps.numpy(), SIGMA),
        lambda: smooth(maps, SIGMA).numpy(),
        lambda expected, result: float(np.abs(expected - result).max()),
        repetitions,
    )


def aupro(images: int, side: int, repetitions: int) -> list[Row]:
    """The plain definition, regionprops and a loop over 200 thresholds, against ours and against the exact integral."""
    masks, maps = (np.stack(parts) for parts in zip(*(draw(index, side) for index in range(images)), strict=True))
    rows = [
        pair(
            f"{name}, {images} images",
            lambda: naive.aupro(masks, maps),
            lambda function=function: function(masks, maps),
            lambda expected, result: abs(expected - result),
            repetitions,
        )
        for name, function in (("AUPRO", metrics.pixel_aupro), ("exact AUPRO", metrics.pixel_aupro_exact))
    ]
    return [rows[0], replace(rows[1], difference="")]  # the exact integral is another number


def streaming_accuracy(images: int, side: int, bits: int = BITS) -> Row:
    """All maps at once against counting them into cells, for AUROC, AUPRO and AP."""
    masks, maps = (np.stack(parts) for parts in zip(*(draw(index, side) for index in range(images)), strict=True))
    functions = (metrics.pixel_auroc, metrics.pixel_aupro, metrics.pixel_ap)
    expected, at_once = measured(lambda: [function(masks, maps) for function in functions])

    def counted() -> list[float]:
        histogram = PixelHistogram(bits=bits)
        for mask, anomaly_map in zip(masks, maps, strict=True):
            histogram.add(count_pixels(mask, anomaly_map, bits=bits))
        found = metrics_of("pixel", histogram.counts())
        return [float(found[name]) for name in ("pixel_auroc", "pixel_aupro", "pixel_ap")]

    result, streaming = measured(counted)
    differences = [abs(a - b) for a, b in zip(expected, result, strict=True) if a is not None]
    return Row(
        f"streaming metrics, {images} maps, 2^{bits} cells an octave: AUROC, AUPRO, AP",
        f"{at_once}, all at once",
        str(streaming),
        "",
        ", ".join(f"{value:.0e}" for value in differences),
    )


def streaming_memory(images: int, side: int) -> list[Row]:
    """A sixteenth, a quarter and all of the maps, drawn on the fly, each in a process of its own."""
    rows = []
    for count in sorted({max(images // 16, 1), max(images // 4, 1), images}):
        counted = in_a_process(_count, count, side, torch.get_num_threads())
        rows.append(
            Row(
                f"streaming metrics, {count} maps of {side} x {side}",
                f"{count * side**2 * 5 / 2**20:.0f} MB (maps and masks kept)",
                f"{counted.grown:.0f} MB more (process {counted.peak:.0f} MB), {counted.spent / count} a map",
                "",
                "bounds: " + ", ".join(f"{name} {value:.1e}" for name, value in counted.errors.items()),
            )
        )
    return rows


@dataclass(frozen=True)
class Counted:
    """What counting some maps took.

    Attributes:
        spent: without drawing the maps.
        grown, peak: resident memory, MB: by how much it has grown since the first map was drawn, and in all.
        errors: from `error_bounds`.
    """

    spent: Spent
    grown: float
    peak: float
    errors: dict[str, float]


def _count(images: int, side: int, threads: int) -> Counted:
    torch.set_num_threads(threads)
    draw(0, side)
    before = peak_memory()
    histogram = PixelHistogram()
    total = Spent(0, 0)
    for index in range(images):
        mask, anomaly_map = draw(index, side)
        _, spent = measured(lambda mask=mask, anomaly_map=anomaly_map: histogram.add(count_pixels(mask, anomaly_map)))
        total += spent
    peak = peak_memory()
    return Counted(total, peak - before, peak, error_bounds(histogram))

"""The pixel metrics and the Gaussian filter: time, memory and accuracy."""

import multiprocessing
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import metrics
from AnomalyCLIP_lib.scoring import smooth
from benchmarks import naive
from benchmarks.table import Row, pair, seconds
from pixel_histogram import PixelHistogram

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


def aupro(images: int, side: int, repetitions: int) -> Row:
    """The loop over 200 thresholds, its regions found beforehand, against ours, which finds them each time."""
    masks, maps = (np.stack(parts) for parts in zip(*(draw(index, side) for index in range(images)), strict=True))
    regions = naive.find_regions(masks)
    return pair(
        f"AUPRO, {images} images, {len(regions)} regions",
        lambda: naive.aupro(masks, maps, regions),
        lambda: metrics.pixel_aupro(masks, maps),
        lambda expected, result: abs(expected - result),
        repetitions,
    )


def streaming_accuracy(images: int, side: int, cells: int) -> Row:
    """All maps at once against counting them into cells, for AUROC, AUPRO and exact AUPRO."""
    masks, maps = (np.stack(parts) for parts in zip(*(draw(index, side) for index in range(images)), strict=True))
    start = time.perf_counter()
    expected = [
        function(masks, maps) for function in (metrics.pixel_auroc, metrics.pixel_aupro, metrics.pixel_aupro_exact)
    ]
    middle = time.perf_counter()
    histogram = PixelHistogram(cells)
    for mask, anomaly_map in zip(masks, maps, strict=True):
        histogram.add(mask, anomaly_map)
    result = [histogram.auroc(), histogram.aupro(), histogram.aupro_exact()]
    end = time.perf_counter()
    differences = [abs(a - b) for a, b in zip(expected, result, strict=True) if a is not None and b is not None]
    return Row(
        f"streaming metrics, {images} maps, {cells} cells: AUROC, AUPRO, exact AUPRO",
        seconds(middle - start) + " (all at once)",
        seconds(end - middle),
        "",
        ", ".join(f"{value:.0e}" for value in differences),
    )


def streaming_memory(images: int, side: int) -> list[Row]:
    """A sixteenth, a quarter and all of the maps, drawn on the fly, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for count in (max(images // 16, 1), max(images // 4, 1), images):
        with context.Pool(1) as pool:
            duration, grown, peak, errors = pool.apply(_count, (count, side, torch.get_num_threads()))
        rows.append(
            Row(
                f"streaming metrics, {count} maps of {side} x {side}",
                f"{count * side**2 * 5 / 2**20:.0f} MB (maps and masks kept)",
                f"{grown:.0f} MB more (process {peak:.0f} MB), {duration / count * 1000:.1f} ms a map",
                "",
                "bounds: " + ", ".join(f"{name} {value:.0e}" for name, value in errors.items()),
            )
        )
    return rows


def _count(images: int, side: int, threads: int) -> tuple[float, float, float, dict[str, float]]:
    """Seconds spent on counting, and MB by which the process has grown from its first map on, and in all."""
    torch.set_num_threads(threads)
    draw(0, side)
    before = _peak_memory()
    histogram, duration = PixelHistogram(), 0.0
    for index in range(images):
        mask, anomaly_map = draw(index, side)
        start = time.perf_counter()
        histogram.add(mask, anomaly_map)
        duration += time.perf_counter() - start
    start = time.perf_counter()
    histogram.errors()  # counts what is still waiting
    duration += time.perf_counter() - start
    peak = _peak_memory()
    return duration, peak - before, peak, histogram.errors()


def _peak_memory() -> float:
    """Largest resident memory of this process so far, MB; of Linux, which keeps it apart from the parent's."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**10 if found else float("nan")

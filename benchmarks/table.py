"""Rows of the benchmarks' table, and timing in pairs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from tabulate import tabulate

HEADERS = ("what", "naive", "ours", "ratio", "largest difference")


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print; what does not apply is left empty."""

    what: str
    naive: str = ""
    ours: str = ""
    ratio: str = ""
    difference: str = ""

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADERS`."""
        return self.what, self.naive, self.ours, self.ratio, self.difference


def table(rows: list[Row]) -> str:
    """As Markdown."""
    return tabulate([row.cells() for row in rows], HEADERS, tablefmt="pipe", disable_numparse=True)


def pair(
    what: str,
    naive: Callable[[], Any],
    ours: Callable[[], Any],
    difference: Callable[[Any, Any], float],
    repetitions: int,
) -> Row:
    """Time both one after the other, so that what else the machine does hits both alike.

    The first pair warms up and is not counted. Times are medians, the ratio is the median of the pairs' ratios.
    """
    times = []
    expected = result = None
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        expected = naive()
        middle = time.perf_counter()
        result = ours()
        times.append((middle - start, time.perf_counter() - middle))
    times = times[1:]
    return Row(
        what,
        seconds(median(slow for slow, _ in times)),
        seconds(median(fast for _, fast in times)),
        f"{median(slow / fast for slow, fast in times):.2f}x",
        f"{difference(expected, result):.1e}",
    )


def seconds(value: float) -> str:
    """For reading: 12.3 s or 45 ms."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"

"""Wall and CPU seconds, and timing in pairs."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from benchmarks.table import Row

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spent:
    """Seconds; CPU seconds are those of all threads, and of the child processes that have ended meanwhile."""

    wall: float
    cpu: float

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.wall - other.wall, self.cpu - other.cpu)

    def __mul__(self, factor: float) -> "Spent":
        return Spent(self.wall * factor, self.cpu * factor)

    def __truediv__(self, divisor: float) -> "Spent":
        return Spent(self.wall / divisor, self.cpu / divisor)

    def __str__(self) -> str:
        return f"{seconds(self.wall)} (CPU {seconds(self.cpu)})"


def spent_so_far() -> Spent:
    """A reading of both clocks; only differences mean something."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    return Spent(time.perf_counter(), cpu)


def measured(action: Callable[[], Result]) -> tuple[Result, Spent]:
    """What `action` returns, and what it took."""
    start = spent_so_far()
    result = action()
    return result, spent_so_far() - start


def ratio(slow: Spent, fast: Spent) -> str:
    """How many times `fast` goes into `slow`, by both clocks."""
    return f"{slow.wall / fast.wall:.2f}x (CPU {slow.cpu / fast.cpu:.2f}x)"


def pair(
    what: str,
    naive: Callable[[], Any],
    ours: Callable[[], Any],
    difference: Callable[[Any, Any], float],
    repetitions: int,
) -> Row:
    """Time both one after the other, so that what else the machine does hits both alike.

    The first pair warms up and is not counted. Times are medians, the ratios are medians of the pairs' ratios.
    """
    expected, result = naive(), ours()
    pairs = []
    for _ in range(repetitions):
        expected, slow = measured(naive)
        result, fast = measured(ours)
        pairs.append((slow, fast))
    slows, fasts = zip(*pairs, strict=True)
    wall, cpu = (median(getattr(a, clock) / getattr(b, clock) for a, b in pairs) for clock in ("wall", "cpu"))
    return Row(
        what,
        str(_median(slows)),
        str(_median(fasts)),
        f"{wall:.2f}x (CPU {cpu:.2f}x)",
        f"{difference(expected, result):.1e}",
    )


def seconds(value: float) -> str:
    """For reading: 12.3 s or 45 ms."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _median(spent: tuple[Spent, ...]) -> Spent:
    return Spent(median(each.wall for each in spent), median(each.cpu for each in spent))

"""Work in a process of its own, and the memory that it takes there."""

import multiprocessing
import re
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_a_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What the function returns, called in a fresh process that may start processes itself.

    Raises:
        BrokenProcessPool: it was killed, where memory did not suffice for instance.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory() -> float:
    """Largest resident memory of this process so far, MB; of Linux, which keeps it apart from the parent's."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**10 if found else float("nan")


def largest_child() -> float:
    """Largest resident memory of any child process that has ended, MB; what it shares with its parent included."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10

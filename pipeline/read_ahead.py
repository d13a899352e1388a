"""Computing results before they are asked for, in threads and in order.

Threads suffice: Pillow, OpenCV and torch let go of Python's lock where the time goes. They need no copies between
processes, share what has been loaded, and die with the process.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def thread_pool(threads: int) -> Iterator[ThreadPoolExecutor | None]:
    """A pool whose waiting work is dropped at the end; None for 0 threads, which `in_order` takes."""
    if not threads:
        yield None
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: ThreadPoolExecutor | None, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """`map(function, items)`, computed by a pool's threads before it is asked for, at most `ahead` results at a time.

    Args:
        pool: None computes each result when it is asked for.
    """
    if pool is None:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to a GPU it is on its way when this returns."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

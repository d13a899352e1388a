"""One run spread over several processes that torchrun starts: who does what, and how the results come together.

Batches are dealt out like cards: of N processes, number r takes the batches r, r + N, r + 2N, ... So every batch has
the images that it has in a run of one process, and the results are the same numbers. Process 0, the main one, collects
them, learns the prompts and writes the files.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import BatchSampler, Sampler

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.memory import is_out_of_memory

TIMEOUT = timedelta(minutes=60)
"""How long a process waits for one that says nothing; one that has ended is noticed at once."""

T = TypeVar("T")
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_FAILURES, _DONE = "anomalyclip/failures", "anomalyclip/done"


@dataclass(frozen=True)
class Ranks:
    """The place of this process among all those of a run.

    Every method but `shard` and `is_main` is collective: all processes call it, in the same order.

    Attributes:
        rank: 0 for the main process.
        size: how many there are.
        device: the name of the device that this process computes on, or "auto".
        store: where the processes leave one another notes; None for a process that is alone.
    """

    rank: int = 0
    size: int = 1
    device: str = "auto"
    store: Any = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, batches: BatchSampler) -> Sampler[list[int]]:
        """Every N-th batch, the first one being number `rank`."""
        return batches if self.size == 1 else _EveryNth(batches, self.rank, self.size)

    def broadcast(self, value: T) -> T:
        """The main process's value; it has to be picklable."""
        if self.size == 1:
            return value
        values = [value]
        with _peers():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, on the main one; an empty list on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        with _peers():
            dist.gather_object(value, values, dst=0)
        return values or []

    def gather_lazily(self, value: T) -> Iterator[T]:
        """As `gather`, for large values: the main process receives each one only when it is asked for.

        It has to take them all. On the other processes, nothing is sent before the iteration starts.
        """
        if self.is_main:
            yield value
            for source in range(1, self.size):
                received: list[Any] = [None]
                with _peers():
                    dist.recv_object_list(received, src=source)
                yield received[0]
        else:
            with _peers():
                dist.send_object_list([value], dst=0)

    def gather_tensors_lazily(self, tensors: Sequence[Tensor], device: torch.device) -> Iterator[list[Tensor]]:
        """As `gather_lazily`, for a list of tensors of any shapes and types, empty for a process that has none."""
        if self.size == 1:
            yield list(tensors)
            return
        descriptions = self.gather([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        if not self.is_main:
            with _peers():
                for tensor in tensors:
                    dist.send(tensor.to(device).contiguous(), dst=0)
            return
        yield list(tensors)
        for source in range(1, self.size):
            received = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in descriptions[source]]
            with _peers():
                for tensor in received:
                    dist.recv(tensor, src=source)
            yield received

    def finish(self) -> None:
        """Wait until all processes have come here; after it each goes its own way and may end.

        By notes in the store: a process that ended earlier would cut off the last messages to the others.
        """
        if self.size == 1:
            return
        try:
            self.store.set(f"{_DONE}/{self.rank}", "")
            self.store.wait([f"{_DONE}/{rank}" for rank in range(self.size)], TIMEOUT)
        except RuntimeError as error:
            if self.is_main:
                raise InputError(
                    "Another process of this run has ended; look for its message, then start the run again."
                ) from error
            # else the main process, which may hold the store, saw everybody here and has ended already


ALONE = Ranks()


class _EveryNth(Sampler[list[int]]):
    def __init__(self, batches: BatchSampler, rank: int, size: int):
        self.batches, self.rank, self.size = batches, rank, size

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.batches), self.rank, None, self.size)

    def __len__(self) -> int:
        return len(range(self.rank, len(self.batches), self.size))


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """This process's place in the run; processes that torchrun started find one another here.

    In a run of several, an error ends the process at once, without waiting for the others, and exactly one process
    tells its reason: the first that fails. torchrun ends the others.

    Args:
        device: as `device.resolve_device` takes it. "auto" and "cuda" mean one GPU for each process of a machine.

    Raises:
        InputError: the processes do not find one another, or there are more of them than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not all(name in os.environ for name in _ENVIRONMENT):
        yield Ranks(device=device)
        return
    store: Any = None
    # torchrun ends the others by a signal once one has failed: let them clear away their temporary files.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        own = _own_device(device, int(os.environ["LOCAL_RANK"]))
        cuda = own.startswith("cuda")
        if cuda:
            torch.cuda.set_device(own)
        try:
            store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"The {size} processes of this run did not find one another: {error}") from error
        ranks = Ranks(rank, size, own, store)
        yield ranks
        ranks.finish()
        dist.destroy_process_group()
    except BaseException as error:
        _end(error, store)


def _terminated(*_: object) -> None:
    raise InputError("The run was ended from outside.")


def _own_device(device: str, local_rank: int) -> str:
    if device not in ("auto", "cuda"):
        if device.startswith("cuda:"):
            raise InputError(
                f"--device {device} is one GPU, and torchrun needs one for each process; use cuda or auto."
            )
        return device
    if device == "auto" and not torch.cuda.is_available():
        return "cpu"
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"There are more processes than GPUs on this machine, which has {torch.cuda.device_count()}; lower "
            "--nproc_per_node, or use --device cpu."
        )
    return f"cuda:{local_rank}"


def _end(error: BaseException, store: Any) -> None:
    """End this process of several with a message, unless another one has failed before and told the reason.

    os._exit, since the ordinary way out could wait for processes that will never answer.
    """
    try:
        first = store is None or store.add(_FAILURES, 1) == 1
    except RuntimeError:  # the process that held the store has ended, with its own message
        first = False
    if first:
        if isinstance(error, InputError):
            print(f"\nerror: {error}", file=sys.stderr)  # the main process's progress bar may hold the line
        elif isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2 if isinstance(error, InputError) else 130 if isinstance(error, KeyboardInterrupt) else 1)


@contextmanager
def _peers() -> Iterator[None]:
    """What torch says when another process has gone, as a sentence."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"Another process of this run has ended or does not answer ({reason}); look for its message, then start "
            "the run again."
        ) from error

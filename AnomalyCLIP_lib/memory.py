"""Running out of memory: smaller batches for the frozen encoder, a sentence where nothing smaller is left."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from AnomalyCLIP_lib.errors import InputError

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a torch error means that the memory of the device, or of the machine, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class BatchHalving:
    """Calls a function of a batch on parts of it that fit into memory.

    It starts with whole batches. Whenever memory runs out, the parts become half as large, and stay so. This may be
    done with the encoder because its images do not depend on one another; the optimiser's batch is never split.

    Attributes:
        limit: images per call; None as long as memory has sufficed.
    """

    def __init__(self) -> None:
        self.limit: int | None = None

    def __call__(self, function: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
        """What `function(images)` gives.

        Args:
            function: from (b, ...) to tensors whose first axis is b.
            images: (B, ...).

        Raises:
            InputError: memory does not suffice for one image.
        """
        while True:
            size = min(self.limit or len(images), max(len(images), 1))
            try:
                parts = [function(part) for part in images.split(size)]
                return parts[0] if len(parts) == 1 else tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else "out of memory"
            # Outside of the except clause: the error's traceback keeps the failed call's tensors alive.
            self._halve(size, reason)

    def _halve(self, size: int, reason: str) -> None:
        if size == 1:
            raise InputError(
                f"The memory does not suffice to encode a single image ({reason}); use a smaller --image_size, "
                "--precision bf16, or --device cpu."
            )
        self.limit = size // 2
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        logging.getLogger(__name__).warning(
            f"The memory does not suffice to encode {size} images at once: going on with {self.limit} at a time "
            "(the results stay the same, training steps too)."
        )

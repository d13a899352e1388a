"""From images to conclusions: the one way of dataset runs, single images, calibration and training's thresholds.

Four stages work at the same time, each on what the one before has done: images are read and preprocessed by
`workers` threads, joined into batches and brought to the device by one, scored by one, and concluded upon by the
readers' threads again. Pillow, OpenCV and torch let go of Python's lock where the time goes. Results come in the order
of the images. Of an image, at most `batch_size` + `workers` are waiting between two stages.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from AnomalyCLIP_lib.detector import Detector, NotFiniteError, Prediction
from AnomalyCLIP_lib.errors import InputError
from pipeline.distributed import ALONE, Ranks
from pipeline.read_ahead import in_order, thread_pool, to_device

Item = TypeVar("Item")
Conclusion = TypeVar("Conclusion")


class Sample(Protocol):
    """An image that was read: what the model reads of it, and whatever else its reader keeps."""

    @property
    def image(self) -> Tensor: ...


AnySample = TypeVar("AnySample", bound=Sample)
Read = tuple[int, AnySample | InputError]
"""An image's position, and the image or why it could not be read."""
Scored = tuple[int, AnySample | InputError, Prediction | InputError]
"""The same with its prediction, or why there is none."""


@dataclass(frozen=True)
class Task(Generic[AnySample, Conclusion]):
    """What is done with each of a run's images, numbered from 0. Both functions are called in threads.

    Attributes:
        read: reads an image; InputError where that is impossible.
        conclude: what is to be kept of a scored image.
    """

    read: Callable[[int], AnySample]
    conclude: Callable[[int, AnySample, Prediction], Conclusion]


def score_images(
    detector: Detector,
    task: Task[AnySample, Conclusion],
    paths: Sequence[Path],
    batch_size: int,
    workers: int,
    *,
    class_names: Sequence[str] | None = None,
    maps: bool = True,
    ranks: Ranks = ALONE,
) -> Iterator[list[tuple[int, Conclusion | InputError]]]:
    """Score all images of a run; processes of one run share the batches.

    Args:
        paths: of all images, for messages.
        workers: threads that read images and conclude; 0: everything happens in the calling thread, in turn.
        class_names: of all images, for methods that need them.
        maps: whether anomaly maps are computed.

    Yields:
        for every batch of this process its images' positions, each with its conclusion, or with the reason why there is
        none; equally often in all processes, so that the last list may be empty.
    """
    batches = [range(start, min(start + batch_size, len(paths))) for start in range(0, len(paths), batch_size)]
    own = batches[ranks.rank :: ranks.size]

    def read(position: int) -> Read[AnySample]:
        try:
            return position, task.read(position)
        except InputError as error:
            return position, InputError(str(error))  # without the traceback, which would keep the file's bytes

    def join(samples: list[Read[AnySample]]) -> tuple[list[Read[AnySample]], Tensor]:
        images = [sample.image for _, sample in samples if not isinstance(sample, InputError)]
        return samples, to_device(torch.stack(images) if images else torch.empty(0), detector.device)

    def score(batch: tuple[list[Read[AnySample]], Tensor]) -> list[Scored[AnySample]]:
        samples, images = batch
        usable = [position for position, sample in samples if not isinstance(sample, InputError)]
        names = None if class_names is None else [class_names[position] for position in usable]
        predictions = iter(score_batch(detector, images, [paths[position] for position in usable], names, maps=maps))
        return [
            (position, sample, sample if isinstance(sample, InputError) else next(predictions))
            for position, sample in samples
        ]

    def conclude(scored: Scored[AnySample]) -> tuple[int, Conclusion | InputError]:
        position, sample, prediction = scored
        if isinstance(prediction, InputError):
            return position, prediction
        assert not isinstance(sample, InputError)  # it would have no prediction
        return position, task.conclude(position, sample, prediction)

    one = min(workers, 1)
    with thread_pool(workers) as readers, thread_pool(one) as joiner, thread_pool(one) as scorer:
        samples = in_order(readers, read, (position for batch in own for position in batch), batch_size + workers)
        joined = in_order(joiner, join, _batched(samples, own), 1)
        # Two batches wait at the GPU, so that it has work while the caller takes in the images of the one before.
        scored = (image for batch in in_order(scorer, score, joined, 2) for image in batch)
        conclusions = in_order(readers, conclude, scored, batch_size)
        for turn in range(-(-len(batches) // ranks.size)):
            yield list(islice(conclusions, len(own[turn]) if turn < len(own) else 0))


def score_batch(
    detector: Detector,
    images: Tensor,
    paths: Sequence[Path],
    class_names: Sequence[str] | None = None,
    *,
    maps: bool = True,
) -> list[Prediction | InputError]:
    """Score preprocessed images, each of which comes out by itself.

    Args:
        images: (B, 3, S, S), from the detector's `preprocess`.
        paths: the B files, for messages.
        class_names: of the B images.
        maps: whether anomaly maps are computed.

    Returns:
        per image its prediction, or the error that names its file where that is not finite.
    """
    if not paths:
        return []
    try:
        prediction, bad, reason = detector.score(images, class_names, maps=maps), [], ""
    except NotFiniteError as error:
        prediction, bad, reason = error.prediction, error.rows, str(error)
    return [InputError(f"{path}: {reason}") if row in bad else prediction[row] for row, path in enumerate(paths)]


def _batched(samples: Iterator[Item], batches: Iterable[range]) -> Iterator[list[Item]]:
    for batch in batches:
        yield list(islice(samples, len(batch)))

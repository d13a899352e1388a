"""What every method of anomaly detection offers, and the one type of its results."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from AnomalyCLIP_lib.checkpoint import Checkpoint
from AnomalyCLIP_lib.decisions import Choice, Thresholds, choose_thresholds, map_values
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.preprocessing import Preprocess

ImageInput = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """The result of a batch, or of one image: without the first dimension, as indexing returns it.

    Attributes:
        anomaly_score: (B,) float32 on the CPU, the probability in [0, 1] that the image is anomalous.
        anomaly_map: (B, S, S) float32 on the CPU, smoothed, in [0, layers]; larger is more anomalous. (B, 0, 0) where
            no maps were asked for.
        layers: how many layers' maps were summed.
    """

    anomaly_score: Tensor
    anomaly_map: Tensor
    layers: int

    def __getitem__(self, row: int) -> "Prediction":
        return Prediction(self.anomaly_score[row], self.anomaly_map[row], self.layers)

    def values(self, size: tuple[int, int]) -> np.ndarray:
        """The map of one image in [0, 1] at this width and height, (height, width); see `decisions.map_values`."""
        return map_values(self.anomaly_map.numpy(), self.layers, size)

    def checked(self) -> "Prediction":
        """The prediction itself.

        Raises:
            NotFiniteError: a score or map is not finite.
        """
        finite = self.anomaly_score.isfinite() & self.anomaly_map.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise NotFiniteError(self, (~finite).nonzero().flatten().tolist())
        return self


class NotFiniteError(InputError):
    """Scores or maps of a batch are not finite.

    Args:
        prediction: of the whole batch.
        rows: numbers of the images in the batch that it is wrong for.
    """

    def __init__(self, prediction: Prediction, rows: list[int]):
        super().__init__("the scores are not finite; use --precision fp32, or other prompts.")
        self.prediction, self.rows = prediction, rows


@dataclass(frozen=True)
class FeatureBatch:
    """What one training step reads: the features that a frozen encoder gave of a batch, and the truth.

    Attributes:
        image_features: (B, D) float32, L2-normalised.
        patch_features: per layer (B, 1 + N, D) float32, L2-normalised; of VAND tokens (B, 1 + N, C) as they are.
        masks: (B, S, S) uint8 of 0 and 1.
        labels: (B,) int64, 1 anomalous.
        class_names: of each image, for methods that need them.
    """

    image_features: Tensor
    patch_features: list[Tensor]
    masks: Tensor
    labels: Tensor
    class_names: Sequence[str] = ()


@dataclass(frozen=True)
class Provenance:
    """Where a loaded model came from.

    Attributes:
        fingerprint: of the CLIP weights.
        pretrained: open_clip's tag, where one was given; None for a local file and for the backbone's default.
        checkpoint: the prompts' file; None for handwritten, fresh or no prompts.
        notices: sentences for the user.
        departs: whether typed settings are not those of the checkpoint, which its thresholds were found with.
    """

    fingerprint: str
    pretrained: str | None
    checkpoint: Checkpoint | None
    notices: tuple[str, ...] = ()
    departs: bool = False


class Detector(ABC):
    """A method that scores images. Evaluation, single images, calibration and the web page ask for nothing more.

    Attributes:
        name: of the method, as `--method` takes it.
        image_size: S, pixels.
        layers: how many layers' maps a map sums; maps are in [0, layers].
        device: where it computes.
        preprocess: PIL image -> (3, S, S) float32 tensor.
        provenance: which weights and which checkpoint these are.
    """

    name: str
    image_size: int
    layers: int
    preprocess: Preprocess
    provenance: Provenance

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def needs_class_names(self) -> bool:
        """Whether `score` has to know what the images show."""

    @abstractmethod
    def score(self, images: Tensor, class_names: Sequence[str] | None = None, *, maps: bool = True) -> Prediction:
        """Score one batch of preprocessed images.

        Args:
            images: (B, 3, S, S) float, from `preprocess`, on any device.
            class_names: of each image, for methods that name what they look at.
            maps: whether anomaly maps are computed.

        Raises:
            NotFiniteError: a score or map is not finite.
        """

    def check(self) -> None:  # noqa: B027 - most methods have all they need once they are loaded
        """Raise InputError where something is missing without which no image can be scored."""

    @abstractmethod
    def describe(self) -> str:
        """One line for the user: which method, backbone and prompts."""

    @abstractmethod
    def settings_dict(self) -> dict[str, Any]:
        """All that scores and maps depend on, as plain types."""

    def thresholds(self, image: Choice = None, pixel: Choice = None) -> Thresholds:
        """From which value on an image (its score) and a pixel (its map value over the layers) is anomalous.

        Args:
            image, pixel: a number in [0, 1], "checkpoint", or None: the checkpoint's where it stores one, else 0.5.

        Raises:
            InputError: "checkpoint" where it stores none, or a number that is out of range.
        """
        checkpoint = self.provenance.checkpoint
        saved = checkpoint.settings if checkpoint is not None else {}
        name = str(checkpoint.path) if checkpoint is not None else "a run without a checkpoint"
        return choose_thresholds(image, pixel, saved, name, self.provenance.departs)

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput] | Tensor,
        batch_size: int = 8,
        *,
        class_name: str | None = None,
    ) -> Prediction:
        """Score images of any kind.

        Args:
            images: a path, a PIL image, an HWC uint8 RGB array, a list of these, or a float tensor (B, 3, S, S)
                already preprocessed by `preprocess`.
            batch_size: images per forward pass, at least 1.
            class_name: what the images show, for methods that need it.

        Raises:
            InputError: an image cannot be read, or an array or tensor has another shape or type.
        """
        if batch_size < 1:
            raise InputError(f"predict() was given batch_size {batch_size}; give at least 1.")
        if isinstance(images, Tensor):
            batches = list(self._checked_tensor(images).split(batch_size))
        else:
            single = isinstance(images, (str, Path, Image.Image, np.ndarray))
            items = [images] if single else list(images)
            if not items:
                raise InputError("predict() was given an empty list; give at least one image.")
            batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
        predictions = []
        for batch in batches:
            tensor = batch if isinstance(batch, Tensor) else torch.stack([self.preprocess(_pil(one)) for one in batch])
            predictions.append(self.score(tensor, None if class_name is None else [class_name] * len(tensor)))
        return Prediction(
            torch.cat([prediction.anomaly_score for prediction in predictions]),
            torch.cat([prediction.anomaly_map for prediction in predictions]),
            self.layers,
        )

    def _checked_tensor(self, images: Tensor) -> Tensor:
        size = self.image_size
        if not images.is_floating_point():
            raise InputError(
                f"predict() was given a {images.dtype} tensor; give a float tensor from model.preprocess, or the "
                "image itself as a PIL image or an HWC uint8 NumPy array."
            )
        if images.ndim != 4 or images.shape[0] == 0 or tuple(images.shape[1:]) != (3, size, size):
            raise InputError(
                f"predict() was given a tensor of shape {tuple(images.shape)}; (B, 3, {size}, {size}) is needed, as "
                "model.preprocess makes it."
            )
        return images.float()


def _pil(image: ImageInput) -> Image.Image:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise InputError(f"predict() cannot use a {type(image).__name__}; give paths, PIL images or NumPy arrays.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"predict() was given an array of shape {image.shape} and type {image.dtype}; (height, width, 3) RGB of "
            "type uint8 is needed."
        )
    return Image.fromarray(image)

"""AnomalyCLIP: a frozen CLIP, two prompts, and from images to scores and maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import DEMO_DESCRIPTION, Backbone
from AnomalyCLIP_lib.checkpoint import Checkpoint
from AnomalyCLIP_lib.decisions import Choice, Thresholds, choose_thresholds, map_values
from AnomalyCLIP_lib.device import autocast
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.memory import BatchHalving
from AnomalyCLIP_lib.preprocessing import build_preprocess
from AnomalyCLIP_lib.prompts import HandwrittenPrompts, PromptLearner
from AnomalyCLIP_lib.scoring import anomaly_maps, image_scores, patch_probabilities
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.text_encoder import TextEncoder
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from AnomalyCLIP_lib.weights import Clip

ImageInput = str | Path | Image.Image | np.ndarray

NO_PROMPTS = (
    "There are no prompts: put the authors' released ones or your own (train.py) into checkpoints/trained_on_mvtec/ "
    "or checkpoints/trained_on_visa/, name a file (checkpoint=, --checkpoint_path), or use 'handwritten'."
)


@dataclass(frozen=True)
class Prediction:
    """The result of a batch, or of one image: without the first dimension, as indexing returns it. All finite.

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
class Provenance:
    """Where a loaded model came from.

    Attributes:
        fingerprint: of the CLIP weights.
        pretrained: open_clip's tag, where one was given; None for a local file and for the backbone's default.
        checkpoint: the prompts' file; None for handwritten, fresh or no prompts.
        notices: sentences for the user: typed settings that depart from the checkpoint's.
    """

    fingerprint: str
    pretrained: str | None
    checkpoint: Checkpoint | None
    notices: tuple[str, ...] = ()


class AnomalyCLIP(nn.Module):
    """Scores images against a normal and an abnormal prompt. Build it with `AnomalyCLIP_lib.load`.

    Args:
        clip: frozen weights, of a backbone that `backbone.find_backbone` accepts.
        backbone: its architecture.
        settings: what is computed.
        prompts: learned or handwritten prompts; None: the model encodes images only.
        provenance: which weights and which checkpoint these are.

    Attributes:
        preprocess: PIL image -> (3, S, S) float32 tensor.
    """

    def __init__(
        self,
        clip: Clip,
        backbone: Backbone,
        settings: Settings,
        prompts: PromptLearner | HandwrittenPrompts | None,
        provenance: Provenance,
    ):
        super().__init__()
        self.visual_encoder = VisualEncoder(cast(VisionTransformer, clip.visual))
        self.text_encoder = TextEncoder(clip)
        self.prompts = prompts
        self.backbone = backbone
        self.settings = settings
        self.provenance = provenance
        self.preprocess = build_preprocess(settings.image_size)
        self._within_memory = BatchHalving()
        self._frozen_text_features: Tensor | None = None

    def describe(self) -> str:
        """One line for the user: which backbone, which prompts."""
        backbone = DEMO_DESCRIPTION if self.backbone.is_demo else f"backbone {self.backbone.name}"
        checkpoint = self.provenance.checkpoint
        if isinstance(self.prompts, HandwrittenPrompts):
            prompts = "handwritten prompts"
        elif checkpoint is not None:
            trained_on = f", trained on {checkpoint.trained_on}" if checkpoint.trained_on else ""
            prompts = f"prompts {checkpoint.shown_path}{trained_on}"
        else:
            prompts = "no learned prompts"
        return f"{backbone}; {prompts}"

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
        return choose_thresholds(image, pixel, saved, name, departs=bool(self.provenance.notices))

    @property
    def device(self) -> torch.device:
        return self.text_encoder.positional_embedding.device

    @torch.no_grad()
    def encode_image(self, images: Tensor, features_list: Sequence[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Image and patch features of the frozen encoder.

        Where memory does not suffice for all images at once, they are encoded in smaller batches.

        Args:
            images: (B, 3, S, S) float, from `preprocess`, on any device.
            features_list: 1-based block numbers; None: those of the settings.

        Returns:
            image features (B, D) and, per block, patch features (B, 1 + N, D), class token first; float32,
            L2-normalised, on the model's device.
        """
        layers = self.settings.features_list if features_list is None else features_list
        absent = [layer for layer in layers if not 1 <= layer <= self.backbone.vision_layers]
        if absent:
            raise InputError(
                f"Block {absent[0]} does not exist: backbone {self.backbone.name} has the blocks 1 to "
                f"{self.backbone.vision_layers}; fix features_list."
            )

        def encode(part: Tensor) -> tuple[Tensor, ...]:
            with autocast(self.settings.precision, self.device):
                image_features, patch_features = self.visual_encoder(
                    part.to(self.device, non_blocking=True), layers, self.settings.dpam, self.settings.dpam_layer
                )
            return _normalised(image_features), *map(_normalised, patch_features)

        image_features, *patch_features = self._within_memory(encode, images)
        return image_features, patch_features

    def text_features(self) -> Tensor:
        """(2, D) float32, L2-normalised; row 0 normal, row 1 abnormal. Gradients reach learnable prompts.

        Raises:
            InputError: the model was loaded without prompts.
        """
        if self.prompts is None:
            raise InputError(NO_PROMPTS)
        return _normalised(self.text_encoder(*self.prompts()))

    def layer_probabilities(self, patch_features: Sequence[Tensor], text_features: Tensor) -> list[Tensor]:
        """(B, 2, S, S) per layer that counts (`feature_map_layer`); arguments as the encoders return them."""
        return [
            patch_probabilities(patch_features[position], text_features, self.settings.image_size)
            for position in self.settings.map_positions()
        ]

    @torch.no_grad()
    def score(self, images: Tensor, *, maps: bool = True) -> Prediction:
        """Score one batch of preprocessed images.

        Args:
            images: (B, 3, S, S) float, from `preprocess`.
            maps: whether anomaly maps are computed; without them the local path is left out.

        Raises:
            NotFiniteError: a score or map is not finite.
        """
        image_features, patch_features = self.encode_image(images, None if maps else ())
        return self.score_features(image_features, patch_features, self._scoring_text_features(), maps=maps)

    @torch.no_grad()
    def score_features(
        self, image_features: Tensor, patch_features: Sequence[Tensor], text_features: Tensor, *, maps: bool = True
    ) -> Prediction:
        """As `score`, from features that `encode_image` and `text_features` returned."""
        scores = image_scores(image_features, text_features).cpu()
        if maps:
            probabilities = self.layer_probabilities(patch_features, text_features)
            anomaly_map = anomaly_maps(probabilities, self.settings.sigma)
        else:
            anomaly_map = scores.new_empty(len(scores), 0, 0)
        prediction = Prediction(scores, anomaly_map, len(self.settings.map_positions()))
        finite = scores.isfinite() & anomaly_map.isfinite().flatten(1).all(dim=1)
        if not finite.all():
            raise NotFiniteError(prediction, (~finite).nonzero().flatten().tolist())
        return prediction

    def _scoring_text_features(self) -> Tensor:
        """`text_features`, computed once where the prompts cannot change any more."""
        if any(parameter.requires_grad for parameter in self.parameters()):
            return self.text_features()
        if self._frozen_text_features is None or self._frozen_text_features.device != self.device:
            self._frozen_text_features = self.text_features()
        return self._frozen_text_features

    def predict(self, images: ImageInput | Sequence[ImageInput] | Tensor, batch_size: int = 8) -> Prediction:
        """Score images of any kind.

        Args:
            images: a path, a PIL image, an HWC uint8 RGB array, a list of these, or a float tensor (B, 3, S, S)
                already preprocessed by `preprocess`.
            batch_size: images per forward pass.

        Raises:
            InputError: an image cannot be read, or an array or tensor has another shape or type.
        """
        if isinstance(images, Tensor):
            batches = list(self._checked_tensor(images).split(batch_size))
        else:
            single = isinstance(images, (str, Path, Image.Image, np.ndarray))
            items = [images] if single else list(images)
            if not items:
                raise InputError("predict() was given an empty list; give at least one image.")
            batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
        predictions = [
            self.score(batch if isinstance(batch, Tensor) else self._preprocessed(batch)) for batch in batches
        ]
        return Prediction(
            torch.cat([prediction.anomaly_score for prediction in predictions]),
            torch.cat([prediction.anomaly_map for prediction in predictions]),
            predictions[0].layers,
        )

    def _preprocessed(self, images: Sequence[ImageInput]) -> Tensor:
        return torch.stack([self.preprocess(_as_picture(image)) for image in images])

    def _checked_tensor(self, images: Tensor) -> Tensor:
        size = self.settings.image_size
        if not images.is_floating_point():
            raise InputError(
                f"predict() was given a {images.dtype} tensor; give a float tensor from model.preprocess, or the "
                "picture itself as a PIL image or an HWC uint8 NumPy array."
            )
        if images.ndim != 4 or images.shape[0] == 0 or tuple(images.shape[1:]) != (3, size, size):
            raise InputError(
                f"predict() was given a tensor of shape {tuple(images.shape)}; (B, 3, {size}, {size}) is needed, as "
                "model.preprocess makes it."
            )
        return images


def _as_picture(image: ImageInput) -> Image.Image:
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


def _normalised(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1)

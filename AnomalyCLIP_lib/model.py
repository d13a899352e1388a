"""AnomalyCLIP: a frozen CLIP, two prompts, and from images to scores and maps."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import DEMO_DESCRIPTION, Backbone
from AnomalyCLIP_lib.detector import Detector, Prediction, Provenance
from AnomalyCLIP_lib.device import autocast
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.memory import BatchHalving
from AnomalyCLIP_lib.preprocessing import Preprocess
from AnomalyCLIP_lib.prompts import HandwrittenPrompts, PromptLearner
from AnomalyCLIP_lib.scoring import anomaly_maps, image_scores, normalised, patch_probabilities
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.text_encoder import TextEncoder
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from AnomalyCLIP_lib.weights import Clip, fingerprint

NO_PROMPTS = (
    "There are no prompts: put the authors' released ones or your own (train.py) into checkpoints/trained_on_mvtec/ "
    "or checkpoints/trained_on_visa/, name a file (checkpoint=, --checkpoint_path), or use 'handwritten'."
)


class AnomalyCLIP(Detector, nn.Module):
    """Scores images against a normal and an abnormal prompt. Build it with `AnomalyCLIP_lib.load`.

    Args:
        clip: frozen weights, of a backbone that `backbone.find_backbone` accepts.
        backbone: its architecture.
        settings: what is computed.
        prompts: learned or handwritten prompts; None: the model encodes images only.
        provenance: which weights and which checkpoint these are.
    """

    name = "anomalyclip"

    def __init__(
        self,
        clip: Clip,
        backbone: Backbone,
        settings: Settings,
        prompts: PromptLearner | HandwrittenPrompts | None,
        provenance: Provenance,
    ):
        nn.Module.__init__(self)
        self.visual_encoder = VisualEncoder(cast(VisionTransformer, clip.visual))
        self.text_encoder = TextEncoder(clip)
        self.prompts = prompts
        self.backbone = backbone
        self.settings = settings
        self.provenance = provenance
        self.image_size = settings.image_size
        self.layers = len(settings.map_positions())
        self.preprocess = Preprocess(settings.image_size)
        self._within_memory = BatchHalving()
        self._frozen_text_features: Tensor | None = None

    def describe(self) -> str:
        backbone = DEMO_DESCRIPTION if self.backbone.is_demo else f"backbone {self.backbone.name}"
        checkpoint = self.provenance.checkpoint
        prompts = "no prompts" if self.prompts is None else self.prompts.description
        return f"{backbone}; {prompts if checkpoint is None else f'prompts {checkpoint.describe()}'}"

    def settings_dict(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.name,
            "fingerprint": self.provenance.fingerprint,
            "prompts": None if self.prompts is None else fingerprint(self.prompts),
            **self.settings.to_dict(),
        }

    def check(self) -> None:
        if self.prompts is None:
            raise InputError(NO_PROMPTS)

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
            return normalised(image_features), *map(normalised, patch_features)

        image_features, *patch_features = self._within_memory(encode, images)
        return image_features, patch_features

    def text_features(self) -> Tensor:
        """(2, D) float32, L2-normalised; row 0 normal, row 1 abnormal. Gradients reach learnable prompts.

        Raises:
            InputError: the model was loaded without prompts.
        """
        self.check()
        assert self.prompts is not None
        return normalised(self.text_encoder(*self.prompts()))

    def layer_probabilities(self, patch_features: Sequence[Tensor], text_features: Tensor) -> list[Tensor]:
        """(B, 2, S, S) per layer that counts (`feature_map_layer`); arguments as the encoders return them."""
        return [
            patch_probabilities(patch_features[position], text_features, self.settings.image_size)
            for position in self.settings.map_positions()
        ]

    @torch.no_grad()
    def score(self, images: Tensor, class_names: Sequence[str] | None = None, *, maps: bool = True) -> Prediction:
        """See `Detector.score`; the prompts name no object, so class names do not matter."""
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
        return Prediction(scores, anomaly_map, self.layers).checked()

    def _scoring_text_features(self) -> Tensor:
        """`text_features`, computed once where the prompts cannot change any more."""
        if any(parameter.requires_grad for parameter in self.parameters()):
            return self.text_features()
        if self._frozen_text_features is None or self._frozen_text_features.device != self.device:
            self._frozen_text_features = self.text_features()
        return self._frozen_text_features

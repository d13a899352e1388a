"""What the baselines share: a frozen CLIP, text features that are made once per class, and the way to a prediction."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import DEMO_DESCRIPTION, PAPER_BACKBONE, Backbone
from AnomalyCLIP_lib.baselines.text_ensembles import ENSEMBLES
from AnomalyCLIP_lib.detector import Detector, Prediction, Provenance
from AnomalyCLIP_lib.device import autocast
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.memory import BatchHalving
from AnomalyCLIP_lib.preprocessing import Preprocess
from AnomalyCLIP_lib.scoring import image_scores, normalised
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.text_encoder import TextEncoder
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.weights import Clip, fingerprint, text_tower

TEXTS_AT_ONCE = 128


class Baseline(Detector, nn.Module):
    """A method beside which AnomalyCLIP is put. Each image is compared with the text features of its own class.

    Args:
        clip: frozen weights, of a backbone that `backbone.find_backbone` accepts.
        backbone: its architecture.
        settings: what is computed.
        provenance: which weights and which checkpoint these are.

    Attributes:
        default_backbone: what the method is published with.
        gelu: whether it runs GELU, whatever its weights were trained with.
        learned: the part that training changes; None: nothing learns.
    """

    default_backbone = PAPER_BACKBONE
    gelu = False
    learned: nn.Module | None

    def __init__(self, clip: Clip, backbone: Backbone, settings: Settings, provenance: Provenance):
        nn.Module.__init__(self)
        self.visual_encoder = self.build_encoder(cast(VisionTransformer, clip.visual), settings)
        self.text_encoder = TextEncoder(clip)
        self.token_embedding = text_tower(clip).token_embedding
        self.backbone, self.settings, self.provenance = backbone, settings, provenance
        self.name, self.image_size, self.layers = settings.method, settings.image_size, 1
        self.preprocess = Preprocess(settings.image_size)
        self.learned = None
        self._within_memory = BatchHalving()
        self._text_features: dict[str, Tensor] = {}

    @abstractmethod
    def build_encoder(self, visual: VisionTransformer, settings: Settings) -> nn.Module:
        """What reads images: called with (B, 3, S, S) and whether maps are wanted, it gives `encode_image`'s values."""

    @abstractmethod
    def anomaly_maps(self, image_scores: Tensor, patch_features: Sequence[Tensor], text_features: Tensor) -> Tensor:
        """(B, S, S) float32, in [0, layers].

        Args:
            image_scores: (B,).
            patch_features: from `encode_image`.
            text_features: (B, 2, D), each image's own.
        """

    @property
    def texts_learn(self) -> bool:
        """Whether text features change from one training step to the next."""
        return False

    @property
    def device(self) -> torch.device:
        return self.text_encoder.positional_embedding.device

    def describe(self) -> str:
        backbone = DEMO_DESCRIPTION if self.backbone.is_demo else f"backbone {self.backbone.name}"
        checkpoint = self.provenance.checkpoint
        return f"{self.name}; {backbone}" + (f"; {checkpoint.describe()}" if checkpoint is not None else "")

    def settings_dict(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.name,
            "fingerprint": self.provenance.fingerprint,
            "prompts": None if self.learned is None else fingerprint(self.learned),
            **self.settings.to_dict(),
        }

    @torch.no_grad()
    def encode_image(self, images: Tensor, *, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Features of the frozen encoder; in smaller batches where memory does not suffice for all images at once.

        Args:
            images: (B, 3, S, S) float, from `preprocess`, on any device.
            maps: whether what only anomaly maps need is computed.

        Returns:
            image features (B, D), L2-normalised, and what the method makes maps of, each (B, ...); float32.
        """

        def encode(part: Tensor) -> tuple[Tensor, ...]:
            with autocast(self.settings.precision, self.device):
                image_features, patch_features = self.visual_encoder(part.to(self.device, non_blocking=True), maps)
            return image_features, *patch_features

        image_features, *patch_features = self._within_memory(encode, images)
        return image_features, patch_features

    def text_features(self, class_names: Sequence[str] | None) -> Tensor:
        """(B, 2, D) float32, L2-normalised, normal first: of each image's class. Made once unless they learn.

        Raises:
            InputError: there are no class names, or CLIP cannot read one in its sentence.
        """
        if not class_names or not all(class_names):
            raise InputError(f"--method {self.name} has to know what the images show; give --class_name.")
        known = {} if self.texts_learn else self._text_features
        missing = [name for name in dict.fromkeys(class_names) if name not in known]
        if missing:
            known |= zip(missing, self.encode_classes(missing), strict=True)
        return torch.stack([known[name] for name in class_names]).to(self.device)

    def encode_classes(self, class_names: Sequence[str]) -> Tensor:
        """(C, 2, D) float32, L2-normalised: of the ensemble of each class."""
        ensemble = ENSEMBLES[self.name]

        def mean(sentences: list[str]) -> Tensor:
            features = torch.cat([self._encode(part) for part in _chunks(sentences)])  # (P, D)
            return normalised((normalised(features) if ensemble.normalised else features).mean(dim=0))

        with torch.no_grad():
            return torch.stack(
                [
                    torch.stack([mean(part) for part in ensemble.sentences(name, self.settings.templates)])
                    for name in class_names
                ]
            )

    def _encode(self, sentences: list[str]) -> Tensor:
        tokens = tokenize(sentences).to(self.device)
        return self.text_encoder(self.token_embedding(tokens), tokens)

    def score(self, images: Tensor, class_names: Sequence[str] | None = None, *, maps: bool = True) -> Prediction:
        with torch.no_grad():
            text_features = self.text_features(class_names)
        if len(text_features) != len(images):
            raise InputError(f"score() was given {len(text_features)} class names for {len(images)} images; give all.")
        image_features, patch_features = self.encode_image(images, maps=maps)
        return self.score_features(image_features, patch_features, text_features, maps=maps)

    @torch.no_grad()
    def score_features(
        self, image_features: Tensor, patch_features: Sequence[Tensor], text_features: Tensor, *, maps: bool = True
    ) -> Prediction:
        """As `score`, from features that `encode_image` and `text_features` returned."""
        scores = image_scores(image_features, text_features, self.settings.temperature)
        anomaly_map = scores.new_empty(len(scores), 0, 0)
        if maps:
            anomaly_map = self.anomaly_maps(scores, patch_features, text_features)
        return Prediction(scores.cpu(), anomaly_map.cpu(), self.layers).checked()


def _chunks(sentences: list[str]) -> list[list[str]]:
    return [sentences[start : start + TEXTS_AT_ONCE] for start in range(0, len(sentences), TEXTS_AT_ONCE)]

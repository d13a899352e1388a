"""What all methods share: a frozen CLIP, text features that are kept, and the way from features to a prediction."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import DEMO_DESCRIPTION, PAPER_BACKBONE, Backbone
from AnomalyCLIP_lib.detector import Detector, Prediction, Provenance
from AnomalyCLIP_lib.device import autocast
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.memory import BatchHalving
from AnomalyCLIP_lib.preprocessing import Preprocess
from AnomalyCLIP_lib.scoring import anomaly_maps, image_scores, patch_probabilities
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.text_encoder import TextEncoder
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.weights import Clip, fingerprint, text_tower

SENTENCES_AT_ONCE = 128
Encoded = tuple[Tensor, list[Tensor]]
"""Image features (B, D), L2-normalised, and what maps are made of, each (B, ...); float32, on the method's device."""


class ClipDetector(Detector, nn.Module):
    """A method that compares image features with the text features of normal and abnormal.

    Args:
        clip: frozen weights, of a backbone that `backbone.find_backbone` accepts.
        backbone: its architecture.
        settings: what is computed.
        provenance: which weights and which checkpoint these are.

    Attributes:
        default_backbone: what the method is published with.
        gelu: whether it runs GELU, whatever its weights were trained with.
    """

    default_backbone = PAPER_BACKBONE
    gelu = False

    def __init__(self, clip: Clip, backbone: Backbone, settings: Settings, provenance: Provenance):
        nn.Module.__init__(self)
        self.visual_encoder = self.build_encoder(cast(VisionTransformer, clip.visual), settings)
        self.text_encoder = TextEncoder(clip)
        self.token_embedding = text_tower(clip).token_embedding
        self.backbone, self.settings, self.provenance = backbone, settings, provenance
        self.name, self.image_size, self.layers = settings.method, settings.image_size, len(settings.map_positions())
        self.preprocess = Preprocess(settings.image_size)
        self._within_memory = BatchHalving()
        self._text_features: dict[str, Tensor] = {}

    @abstractmethod
    def build_encoder(self, visual: VisionTransformer, settings: Settings) -> nn.Module:
        """What reads images."""

    @abstractmethod
    def encode_texts(self, class_names: Sequence[str]) -> Tensor:
        """(C, 2, D) float32, L2-normalised, normal first; gradients reach what learns."""

    @property
    def needs_class_names(self) -> bool:
        return True

    @property
    def learned(self) -> nn.Module | None:
        """What training changes, and a checkpoint keeps."""
        return None

    @property
    def texts_learn(self) -> bool:
        """Whether text features change from one training step to the next."""
        return self.learned is not None and any(parameter.requires_grad for parameter in self.learned.parameters())

    @property
    def device(self) -> torch.device:
        return self.text_encoder.positional_embedding.device

    def describe(self) -> str:
        backbone = DEMO_DESCRIPTION if self.backbone.is_demo else f"backbone {self.backbone.name}"
        checkpoint = self.provenance.checkpoint
        texts = self.describe_texts() if checkpoint is None else f"checkpoint {checkpoint.describe()}"
        return f"{self.name}; {backbone}; {texts}"

    def describe_texts(self) -> str:
        """What is compared with, where no checkpoint says it."""
        return "handwritten prompts"

    def settings_dict(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.name,
            "fingerprint": self.provenance.fingerprint,
            "learned": None if self.learned is None else fingerprint(self.learned),
            **self.settings.to_dict(),
        }

    def compile_encoder(self) -> None:
        """Have torch.compile translate the image encoder at its first batch."""
        try:
            torch.compile(torch.neg)(torch.zeros(1, device=self.device))  # a missing compiler shows here, in seconds
        except Exception as error:  # every backend has error types of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise InputError(f"--compile does not work on this machine ({reason}); omit it.") from error
        self.visual_encoder.compile()

    def encode_image(self, images: Tensor, *, maps: bool = True) -> Encoded:
        """Features of the frozen encoder.

        Args:
            images: (B, 3, S, S) float, from `preprocess`, on any device.
            maps: whether what only anomaly maps need is computed.
        """
        return self._encode(lambda part: self.visual_encoder(part, maps), images)

    @torch.no_grad()
    def _encode(self, encode: Callable[[Tensor], Encoded], images: Tensor) -> Encoded:
        """`encode(images)`; in smaller batches where memory does not suffice for all images at once."""

        def flat(part: Tensor) -> tuple[Tensor, ...]:
            with autocast(self.settings.precision, self.device):
                image_features, patch_features = encode(part.to(self.device, non_blocking=True))
            return image_features, *patch_features

        image_features, *patch_features = self._within_memory(flat, images)
        return image_features, patch_features

    def text_features(self, class_names: Sequence[str] | None = None) -> Tensor:
        """float32, L2-normalised, row 0 normal, row 1 abnormal; kept, unless they learn: then gradients reach that.

        Args:
            class_names: of each image, where the method needs them.

        Returns:
            (B, 2, D), each image's own, or (2, D) where the texts are the same for all.

        Raises:
            InputError: class names are missing, or CLIP cannot read one in its sentence.
        """
        if self.needs_class_names and not (class_names and all(class_names)):
            raise InputError(f"--method {self.name} has to know what the images show; give --class_name.")
        names = class_names if self.needs_class_names and class_names else [""]
        if self.texts_learn:
            self._text_features.clear()
        known = {} if self.texts_learn else self._text_features
        missing = [name for name in dict.fromkeys(names) if name not in known]
        if missing:
            known.update(zip(missing, self.encode_texts(missing), strict=True))
        texts = torch.stack([known[name] for name in names]).to(self.device)
        return texts if self.needs_class_names else texts[0]

    def embed_sentences(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the text encoder reads of P sentences: embeddings (P, 77, W) and token ids (P, 77)."""
        tokens = tokenize(list(sentences)).to(self.device)
        return self.token_embedding(tokens), tokens

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """(P, D), not normalised, of any number of sentences."""
        starts = range(0, len(sentences), SENTENCES_AT_ONCE)
        parts = [self.embed_sentences(sentences[start : start + SENTENCES_AT_ONCE]) for start in starts]
        return torch.cat([self.text_encoder(*part) for part in parts])

    def score(self, images: Tensor, class_names: Sequence[str] | None = None, *, maps: bool = True) -> Prediction:
        with torch.no_grad():
            text_features = self.text_features(class_names)
        if text_features.ndim == 3 and len(text_features) != len(images):
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

    def anomaly_maps(self, image_scores: Tensor, patch_features: Sequence[Tensor], text_features: Tensor) -> Tensor:
        """(B, S, S) float32, in [0, layers]; arguments as the encoders return them, image scores (B,)."""
        return anomaly_maps(self.layer_probabilities(patch_features, text_features), self.settings.sigma)

    def layer_probabilities(self, patch_features: Sequence[Tensor], text_features: Tensor) -> list[Tensor]:
        """(B, 2, S, S) per layer that counts; arguments as the encoders return them."""
        settings = self.settings
        return [
            patch_probabilities(layer, text_features, settings.image_size, settings.temperature)
            for layer in patch_features
        ]

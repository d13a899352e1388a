"""AnomalyCLIP: learned prompts, and patch features of a local path beside CLIP's own (DPAM)."""

from collections.abc import Sequence

from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import Backbone
from AnomalyCLIP_lib.clip_detector import ClipDetector, Encoded
from AnomalyCLIP_lib.detector import FeatureBatch, Provenance
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.losses import GlocalLoss, glocal_loss
from AnomalyCLIP_lib.prompts import HandwrittenPrompts, PromptLearner
from AnomalyCLIP_lib.scoring import image_logits, normalised
from AnomalyCLIP_lib.settings import OBJECT_AWARE, Settings
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from AnomalyCLIP_lib.weights import Clip

NO_PROMPTS = (
    "There are no prompts: put the authors' released ones or your own (train.py) into checkpoints/trained_on_mvtec/ "
    "or checkpoints/trained_on_visa/, name a file (checkpoint=, --checkpoint_path), or use 'handwritten'."
)


class AnomalyCLIP(ClipDetector):
    """Scores images against a normal and an abnormal prompt. Build it with `AnomalyCLIP_lib.load`.

    Args:
        clip, backbone, settings, provenance: see `ClipDetector`.
        prompts: learned or handwritten prompts; None: the model encodes images only.
    """

    def __init__(
        self,
        clip: Clip,
        backbone: Backbone,
        settings: Settings,
        prompts: PromptLearner | HandwrittenPrompts | None,
        provenance: Provenance,
    ):
        super().__init__(clip, backbone, settings, provenance)
        self.prompts = prompts

    def build_encoder(self, visual: VisionTransformer, settings: Settings) -> nn.Module:
        return VisualEncoder(visual)

    def check(self) -> None:
        if self.prompts is None:
            raise InputError(NO_PROMPTS)

    @property
    def needs_class_names(self) -> bool:
        return self.settings.prompts == OBJECT_AWARE and isinstance(self.prompts, PromptLearner)

    @property
    def learned(self) -> nn.Module | None:
        return self.prompts

    def describe_texts(self) -> str:
        return "no prompts" if self.prompts is None else self.prompts.description

    def encode_image(self, images: Tensor, features_list: Sequence[int] | None = None, *, maps: bool = True) -> Encoded:
        """See `ClipDetector.encode_image`; the image feature is CLIP's class token, projected without ln_post.

        Args:
            features_list: 1-based block numbers; None: those of the settings.

        Returns:
            the patch features, per block (B, 1 + N, D), class token first, L2-normalised; of an ensemble of attentions
            the mean of its members' ones, so that their similarities are averaged before the softmax.
        """
        settings = self.settings
        layers = () if not maps else settings.features_list if features_list is None else features_list
        absent = [layer for layer in layers if not 1 <= layer <= self.backbone.vision_layers]
        if absent:
            raise InputError(
                f"Block {absent[0]} does not exist: backbone {self.backbone.name} has the blocks 1 to "
                f"{self.backbone.vision_layers}; fix features_list."
            )

        def encode(part: Tensor) -> Encoded:
            image_features, patch_features = self.visual_encoder(
                part, layers, settings.dpam, settings.dpam_layer, settings.dpam_members
            )
            patch_features = [normalised(layer) for layer in patch_features]
            if settings.dpam == "ensemble":
                patch_features = [members.mean(dim=0) for members in patch_features]
            return normalised(image_features), patch_features

        return self._encode(encode, images)

    def encode_texts(self, class_names: Sequence[str]) -> Tensor:
        self.check()
        assert self.prompts is not None
        if not isinstance(self.prompts, PromptLearner) or not self.needs_class_names:
            return normalised(self.text_encoder(*self.prompts()))[None]
        sentences = [sentence for name in class_names for sentence in self.prompts.sentences(name.replace("_", " "))]
        prompts = self.prompts.insert(*self.embed_sentences(sentences))
        return normalised(self.text_encoder(*prompts)).unflatten(0, (-1, 2))

    def layer_probabilities(self, patch_features: Sequence[Tensor], text_features: Tensor) -> list[Tensor]:
        """(B, 2, S, S) per layer that counts (`feature_map_layer`); arguments as the encoders return them."""
        counting = [patch_features[position] for position in self.settings.map_positions()]
        return super().layer_probabilities(counting, text_features)

    def loss(self, batch: FeatureBatch) -> GlocalLoss:
        """Of one training step, with gradients to the prompts."""
        text_features = self.text_features(batch.class_names)
        return glocal_loss(
            image_logits(batch.image_features, text_features),
            batch.labels.to(self.device),
            self.layer_probabilities(batch.patch_features, text_features),
            batch.masks.to(self.device),
            self.settings.losses,
        )

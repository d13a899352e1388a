"""CoOp (Zhou et al., IJCV 2022) for anomaly detection: one learned context before "normal" and "anomalous" names.

The sentences are the AnomalyCLIP authors', the context, the loss and the optimiser those of CoOp's code. One context
for both sentences, no loss on maps, the image size, 50 epochs and images without augmentation are our reading.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import Backbone
from AnomalyCLIP_lib.baselines.clip import PlainCLIP
from AnomalyCLIP_lib.detector import FeatureBatch, Provenance
from AnomalyCLIP_lib.losses import Loss
from AnomalyCLIP_lib.prompts import INITIAL_STANDARD_DEVIATION, insert_context
from AnomalyCLIP_lib.scoring import image_logits, normalised
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.weights import Clip

WARM_UP_RATE = 1e-5


class Context(nn.Module):
    """The N words that learn, in place of the X's of "X X ... X normal NAME.": for all classes and both sentences.

    Attributes:
        ctx: (N, W).
    """

    def __init__(self, n_ctx: int, width: int):
        super().__init__()
        self.ctx = nn.Parameter(INITIAL_STANDARD_DEVIATION * torch.randn(n_ctx, width))


class CoOp(PlainCLIP):
    """Scores and maps as CLIP's. Arguments as for `ClipDetector`."""

    def __init__(self, clip: Clip, backbone: Backbone, settings: Settings, provenance: Provenance):
        super().__init__(clip, backbone, settings, provenance)
        self.context = Context(settings.n_ctx, backbone.text_width)
        self.logit_scale = clip.logit_scale

    @property
    def learned(self) -> Context:
        return self.context

    def encode_texts(self, class_names: Sequence[str]) -> Tensor:
        """With gradients to the context; `_` in a name reads as a space."""
        filler = " ".join(["X"] * self.settings.n_ctx)
        names = [name.replace("_", " ") for name in class_names]
        sentences = [f"{filler} {word} {name}." for name in names for word in ("normal", "anomalous")]
        embeddings, tokens = self.embed_sentences(sentences)
        embeddings = insert_context(embeddings, self.context.ctx.expand(len(tokens), -1, -1))
        return normalised(self.text_encoder(embeddings, tokens)).unflatten(0, (-1, 2))

    def loss(self, batch: FeatureBatch) -> Loss:
        """Cross-entropy of the similarities times CLIP's own scale, mean over the batch, from image features alone."""
        text_features = self.text_features(batch.class_names)
        logits = image_logits(batch.image_features, text_features, (-self.logit_scale).exp())
        image = F.cross_entropy(logits, batch.labels.to(self.device))
        return Loss(image, torch.zeros_like(image))

    def optimizer(self, learning_rate: float = 0.002) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.context.parameters(), learning_rate, momentum=0.9, weight_decay=5e-4)

    @staticmethod
    def learning_rate(epoch: int, epochs: int, highest: float = 0.002) -> float:
        """Of an epoch, counted from 0: a constant one at first, then half a cosine."""
        return WARM_UP_RATE if epoch == 0 else highest * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2

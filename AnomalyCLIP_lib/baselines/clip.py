"""CLIP as it is, with two sentences (CLIP) or with templates around two words (CLIP-AC).

The paper's baselines, from its authors' description: backbone, sentences and unmodified patch features are theirs. The
image size, the temperature and the Gaussian filter, taken from AnomalyCLIP, are our reading.
"""

from collections.abc import Sequence

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from AnomalyCLIP_lib.baselines.text_ensembles import ENSEMBLES
from AnomalyCLIP_lib.clip_detector import ClipDetector
from AnomalyCLIP_lib.scoring import normalised
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.visual_encoder import VisualEncoder


class PlainEncoder(nn.Module):
    """The image tower without DPAM: all tokens behind the last block, through ln_post and the projection.

    Args:
        visual: an image tower of L blocks.
    """

    def __init__(self, visual: VisionTransformer):
        super().__init__()
        self.tower = VisualEncoder(visual)
        self.last = len(visual.transformer.resblocks)

    def forward(self, images: Tensor, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> image features (B, D) and, for maps, one layer of (B, 1 + N, D); all L2-normalised."""
        class_token, tokens = self.tower.run_blocks(self.tower.embed(images), (self.last,) if maps else ())
        return normalised(self.tower.project(class_token)), [
            normalised(self.tower.project(layer[0])) for layer in tokens
        ]


class PlainCLIP(ClipDetector):
    """CLIP and CLIP-AC, by `settings.method`: they differ in their sentences alone."""

    def build_encoder(self, visual: VisionTransformer, settings: Settings) -> nn.Module:
        return PlainEncoder(visual)

    def encode_texts(self, class_names: Sequence[str]) -> Tensor:
        """Those of the method's ensemble."""
        ensemble, templates = ENSEMBLES[self.name], self.settings.templates
        return torch.stack([ensemble.encode(self.encode_sentences, name, templates) for name in class_names])

"""WinCLIP (Jeong et al., CVPR 2023), zero-shot: CLIP on windows of patches, and harmonic means of their scores.

The computation is that of the AnomalyCLIP authors' implementation (zqhang/Accurate-WinCLIP-pytorch), the 22 templates
are those of WinCLIP's paper. The paper does not say its temperature; 0.07 is our reading, 0.01 is other people's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from AnomalyCLIP_lib.baselines.clip import PlainCLIP
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.prompts import ABNORMAL
from AnomalyCLIP_lib.scoring import logits, normalised
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.visual_encoder import VisualEncoder

SCALES = (2, 3)
"""Sides of the windows, in patches."""


class WindowEncoder(nn.Module):
    """The image tower on the class token with all patches, and with those of every window alone.

    Args:
        visual: an image tower on G x G patches.
    """

    def __init__(self, visual: VisionTransformer):
        super().__init__()
        self.tower = VisualEncoder(visual)
        for scale in SCALES:
            self.register_buffer(f"windows_{scale}", windows(visual.grid_size[0], scale), persistent=False)

    def forward(self, images: Tensor, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> image features (B, D) and, for maps, per scale (B, windows, D); all L2-normalised."""
        x = self.tower.embed(images)  # (B, 1 + N, C); ln_pre treats every token by itself: windows are cut behind it
        scales = [self.encode_windows(x, self.get_buffer(f"windows_{scale}")) for scale in SCALES if maps]
        return self._encode(x), scales

    def encode_windows(self, x: Tensor, windows: Tensor) -> Tensor:
        """Tokens (B, 1 + N, C) and the numbers of each window's tokens, (M, 1 + k²) -> (B, M, D), L2-normalised."""
        return self._encode(x[:, windows].flatten(0, 1)).unflatten(0, (len(x), len(windows)))

    def _encode(self, x: Tensor) -> Tensor:
        class_token, _ = self.tower.run_blocks(x, ())
        return normalised(self.tower.project(class_token))


class WinCLIP(PlainCLIP):
    """Image score from the class token; the map joins those of both window sizes and the image score."""

    default_backbone = "ViT-B-16-plus-240"

    def build_encoder(self, visual: VisionTransformer, settings: Settings) -> nn.Module:
        if min(visual.grid_size) < max(SCALES) or visual.grid_size[0] != visual.grid_size[1]:
            raise InputError(
                f"The backbone cannot be used by --method winclip: it reads {visual.grid_size[0]} x "
                f"{visual.grid_size[1]} patches, and a square of at least 3 x 3 is needed; choose another --backbone."
            )
        return WindowEncoder(visual)

    def anomaly_maps(self, image_scores: Tensor, patch_features: Sequence[Tensor], text_features: Tensor) -> Tensor:
        """Those of the scales joined, then upsampled."""
        grid = self.join_scales(self.scale_maps(patch_features, text_features), image_scores)
        size = (self.image_size, self.image_size)
        return F.interpolate(grid[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    @staticmethod
    def join_scales(scale_maps: Sequence[Tensor], image_scores: Tensor) -> Tensor:
        """The harmonic mean of maps (B, G, G) and image scores (B,): (B, G, G)."""
        inverses = [1 / values for values in (*scale_maps, image_scores[:, None, None])]
        return len(inverses) / sum(inverses[1:], inverses[0])  # a value of 0 has the inverse inf and gives 0

    def scale_maps(self, window_features: Sequence[Tensor], text_features: Tensor) -> list[Tensor]:
        """Per scale (B, G, G): at every patch the harmonic mean of the scores of the windows that contain it.

        Args:
            window_features: per scale (B, windows, D).
            text_features: (B, 2, D).
        """
        grid = self.image_size // self.backbone.patch_size
        maps = []
        for scale, features in zip(SCALES, window_features, strict=True):
            scores = logits(features, text_features, self.settings.temperature).softmax(dim=-1)[..., ABNORMAL]
            inverse = 1 / scores[:, None].expand(-1, scale**2, -1)  # (B, k², windows): every window at its patches
            total = F.fold(inverse, (grid, grid), scale)
            count = F.fold(torch.ones_like(inverse), (grid, grid), scale)
            maps.append((count / total)[:, 0])
        return maps


def windows(grid: int, scale: int) -> Tensor:
    """Every scale x scale block of a grid x grid square of patches, stride 1, row by row.

    Returns:
        ((grid - scale + 1)², 1 + scale²) int64: numbers of the tokens, the class token's 0 first.
    """
    patches = 1 + torch.arange(grid**2).view(grid, grid)
    blocks = patches.unfold(0, scale, 1).unfold(1, scale, 1).reshape(-1, scale**2)
    return F.pad(blocks, (1, 0))

"""VAND, or APRIL-GAN (Chen et al., VAND challenge of CVPR 2023), zero-shot: learned linear layers on patch tokens.

Everything here is what its code computes. Its released layers were learned with GELU in OpenAI's CLIP, which was
trained with QuickGELU, and with positions resized by antialiased bicubic interpolation.
"""

from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import Backbone
from AnomalyCLIP_lib.baselines.clip import PlainCLIP
from AnomalyCLIP_lib.detector import FeatureBatch, Provenance
from AnomalyCLIP_lib.losses import Loss, dice_loss, focal_loss
from AnomalyCLIP_lib.prompts import ABNORMAL
from AnomalyCLIP_lib.scoring import logits, normalised, on_grid
from AnomalyCLIP_lib.settings import Settings
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from AnomalyCLIP_lib.weights import Clip

MOSAIC_PROBABILITY = 0.2
"""Of an image of MVTec AD in training; on VisA there are no mosaics."""

Item = TypeVar("Item")


class TokenEncoder(nn.Module):
    """The image tower, and the tokens as some of its blocks leave them.

    Args:
        visual: an image tower of L blocks.
        features_list: 1-based numbers of the blocks.
    """

    def __init__(self, visual: VisionTransformer, features_list: Sequence[int]):
        super().__init__()
        self.tower = VisualEncoder(visual, {"mode": "bicubic", "antialias": True})
        self.features_list = features_list

    def forward(self, images: Tensor, maps: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, S, S) -> image features (B, D), L2-normalised, and, for maps, per block (B, 1 + N, C)."""
        class_token, tokens = self.tower.run_blocks(self.tower.embed(images), self.features_list if maps else ())
        return normalised(self.tower.project(class_token)), [layer[0] for layer in tokens]


class LinearLayers(nn.Module):
    """One per block, C -> D, named as in the released files."""

    def __init__(self, blocks: int, width: int, out: int):
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(width, out) for _ in range(blocks))

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Per block (B, 1 + N, C) -> (B, N, D), L2-normalised; the class token is dropped."""
        return [normalised(layer(block[:, 1:])) for layer, block in zip(self.fc, tokens, strict=True)]


class VAND(PlainCLIP):
    """Image score of plain CLIP, maps from the linear layers. Arguments as for `ClipDetector`."""

    default_backbone = "ViT-L-14-336"
    gelu = True

    def __init__(self, clip: Clip, backbone: Backbone, settings: Settings, provenance: Provenance):
        super().__init__(clip, backbone, settings, provenance)
        width = cast(VisionTransformer, clip.visual).conv1.out_channels
        self.linear_layers = LinearLayers(self.layers, width, backbone.config["embed_dim"])

    @property
    def learned(self) -> LinearLayers:
        return self.linear_layers

    @property
    def texts_learn(self) -> bool:
        return False

    def build_encoder(self, visual: VisionTransformer, settings: Settings) -> nn.Module:
        return TokenEncoder(visual, settings.features_list)

    def layer_probabilities(self, patch_features: Sequence[Tensor], text_features: Tensor) -> list[Tensor]:
        """Per block (B, 2, S, S); unlike AnomalyCLIP's, the softmax is taken after upsampling to S x S."""
        size, temperature = (self.image_size, self.image_size), self.settings.temperature
        on_patches = [on_grid(logits(f, text_features, temperature)) for f in self.linear_layers(patch_features)]
        return [F.interpolate(x, size, mode="bilinear", align_corners=True).softmax(dim=1) for x in on_patches]

    def loss(self, batch: FeatureBatch) -> Loss:
        """Focal loss and the abnormal channel's dice loss, summed over blocks."""
        local = torch.stack([focal + dice for focal, dice in self.layer_losses(batch)]).sum()
        return Loss(torch.zeros_like(local), local)

    def layer_losses(self, batch: FeatureBatch) -> list[tuple[Tensor, Tensor]]:
        """Focal and dice loss of every block, scalars."""
        probabilities = self.layer_probabilities(batch.patch_features, self.text_features(batch.class_names))
        masks = batch.masks.to(self.device).float()
        return [(focal_loss(p, masks), dice_loss(p[:, ABNORMAL], masks)) for p in probabilities]

    def optimizer(self, learning_rate: float = 1e-3) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.learned.parameters(), learning_rate, betas=(0.5, 0.999))


def draw_mosaic(folders: Sequence[Sequence[Item]], random: np.random.Generator) -> list[Item]:
    """Four of the images of a class: each time a folder is drawn, and one of its images, all equally probable.

    Args:
        folders: the images in each folder of the class's test split, that of normal ones included.
    """
    drawn = []
    for _ in range(4):
        folder = folders[int(random.integers(len(folders)))]
        drawn.append(folder[int(random.integers(len(folder)))])
    return drawn


def paste_mosaic(images: Sequence[Image.Image]) -> Image.Image:
    """Four images, or masks, of any size in two rows, unscaled: every cell has the size of the first one."""
    width, height = images[0].size
    mosaic = Image.new(images[0].mode, (2 * width, 2 * height))
    for position, image in enumerate(images):
        mosaic.paste(image, (position % 2 * width, position // 2 * height))
    return mosaic

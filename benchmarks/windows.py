"""WinCLIP's windows: a forward pass for each against all of an image, or of several, in one batch."""

from typing import Any, cast

import torch
from torch import Tensor

from AnomalyCLIP_lib.backbone import find_backbone
from AnomalyCLIP_lib.baselines.winclip import SCALES, WinCLIP, WindowEncoder
from AnomalyCLIP_lib.weights import random_clip
from benchmarks import naive
from benchmarks.table import Row
from benchmarks.timing import pair

BACKBONE = WinCLIP.default_backbone


def window_embeddings(backbone: str, batch: int, repetitions: int) -> Row:
    """Of every window of a batch of images, with weights drawn at random."""
    torch.manual_seed(0)
    architecture = find_backbone(backbone)
    visual = cast(Any, random_clip(architecture).eval().visual)
    encoder, size = WindowEncoder(visual), architecture.pretraining_size
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def plain() -> Tensor:
        each = [torch.cat([naive.window_features(visual, image[None], scale) for scale in SCALES]) for image in images]
        return torch.stack(each)

    @torch.no_grad()
    def ours() -> Tensor:
        return torch.cat(encoder(images)[1], dim=1)

    count = sum((visual.grid_size[0] - scale + 1) ** 2 for scale in SCALES)
    what = f"WinCLIP's windows, {count} an image, {batch} x {size} x {size}"
    return pair(what, plain, ours, lambda expected, found: float((expected - found).abs().max()), repetitions)

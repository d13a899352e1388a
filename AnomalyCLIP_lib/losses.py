"""The "glocal" loss: cross-entropy on the image, focal and dice loss on the anomaly map (paper, 3.3)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyCLIP_lib.prompts import ABNORMAL, NORMAL
from AnomalyCLIP_lib.settings import LOSSES

LOCAL_WEIGHT = 4.0
FOCAL_GAMMA = 2.0
SMOOTHING = 1e-5


class Loss(NamedTuple):
    """What a training step minimises, scalars: of image scores, and of maps."""

    image: Tensor
    local: Tensor

    @property
    def total(self) -> Tensor:
        return self.image + self.local


class GlocalLoss(NamedTuple):
    """The parts of the loss, scalars, summed over layers; `local` carries the factor 4."""

    image: Tensor
    focal: Tensor
    dice_abnormal: Tensor
    dice_normal: Tensor

    @property
    def local(self) -> Tensor:
        return LOCAL_WEIGHT * (self.focal + self.dice_abnormal + self.dice_normal)

    @property
    def total(self) -> Tensor:
        return self.image + self.local


def glocal_loss(
    logits: Tensor,
    labels: Tensor,
    layer_probabilities: Sequence[Tensor],
    masks: Tensor,
    losses: Sequence[str] = LOSSES,
) -> GlocalLoss:
    """Image loss plus 4 times the local losses of every layer.

    Args:
        logits: (B, 2), from `scoring.image_logits`.
        labels: (B,) int64, 0 normal, 1 anomalous.
        layer_probabilities: per layer (B, 2, S, S), from `scoring.patch_probabilities`.
        masks: (B, S, S), 0 or 1.
        losses: which of "global", "focal" and "dice" count; the others are 0.
    """
    masks = masks.to(layer_probabilities[0].dtype)  # float32 even where an outer autocast made the logits half
    none = masks.new_zeros(())

    def local(name: str, loss: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([loss(p) for p in layer_probabilities]).sum() if name in losses else none

    return GlocalLoss(
        F.cross_entropy(logits, labels) if "global" in losses else none,
        local("focal", lambda p: focal_loss(p, masks)),
        local("dice", lambda p: dice_loss(p[:, ABNORMAL], masks)),
        local("dice", lambda p: dice_loss(p[:, NORMAL], 1 - masks)),
    )


def focal_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Mean of -(1 - p)² log p over all pixels, p the smoothed probability of the true class (Lin et al. 2017).

    Smoothing clamps the one-hot target to [1e-5, 1 - 1e-5] and adds 1e-5 to p.

    Args:
        probabilities: (B, 2, S, S).
        masks: (B, S, S), 0 or 1.
    """
    abnormal = masks.bool()
    true = torch.where(abnormal, probabilities[:, ABNORMAL], probabilities[:, NORMAL])
    false = torch.where(abnormal, probabilities[:, NORMAL], probabilities[:, ABNORMAL])
    p = (1 - SMOOTHING) * true + SMOOTHING * false + SMOOTHING
    return (-((1 - p) ** FOCAL_GAMMA) * p.log()).mean()


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 - mean over the batch of (2 Σ p m + 1) / (Σ p + Σ m + 1) (Milletari et al. 2016, smoothed by 1).

    Args:
        probabilities: (B, S, S), of the class that the mask marks.
        masks: (B, S, S), 0 or 1.
    """
    p, m = probabilities.flatten(1), masks.flatten(1)
    return 1 - ((2 * (p * m).sum(dim=1) + 1) / (p.sum(dim=1) + m.sum(dim=1) + 1)).mean()

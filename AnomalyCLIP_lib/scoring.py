"""From image, patch and text features to probabilities, image scores and anomaly maps (paper, 3.1 and 3.4)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from prompt_ensemble import ABNORMAL, NORMAL

TEMPERATURE = 0.07


def image_logits(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Cosine similarities over the temperature, (B, 2), column 0 normal, column 1 abnormal.

    Args:
        image_features: (B, D), L2-normalised.
        text_features: (2, D), L2-normalised.
    """
    return image_features @ text_features.T / TEMPERATURE


def image_scores(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Probability that each image is anomalous, (B,), in [0, 1]. Arguments as for `image_logits`."""
    return image_logits(image_features, text_features).softmax(dim=-1)[:, ABNORMAL]


def patch_probabilities(patch_features: Tensor, text_features: Tensor, image_size: int) -> Tensor:
    """Probabilities of normal and abnormal for every pixel, from one layer.

    The softmax is taken per patch and upsampled afterwards: bilinear interpolation of logits would give other maps.

    Args:
        patch_features: (B, 1 + N, D), L2-normalised, class token first; N a square number.
        text_features: (2, D), L2-normalised.
        image_size: S.

    Returns:
        (B, 2, S, S), values in [0, 1] that sum to 1 over the channels.
    """
    probabilities = (patch_features[:, 1:] @ text_features.T / TEMPERATURE).softmax(dim=-1)  # (B, N, 2)
    grid = round(probabilities.shape[1] ** 0.5)
    probabilities = probabilities.transpose(1, 2).unflatten(2, (grid, grid))  # (B, 2, G, G)
    return F.interpolate(probabilities, size=(image_size, image_size), mode="bilinear", align_corners=False)


def anomaly_maps(layer_probabilities: Sequence[Tensor], sigma: float) -> Tensor:
    """Sum of the layers' maps, smoothed.

    Args:
        layer_probabilities: per layer (B, 2, S, S), from `patch_probabilities`.
        sigma: standard deviation of the Gaussian in pixels; 0 leaves the sum as it is.

    Returns:
        (B, S, S) float32 on the CPU, in [0, number of layers].
    """
    total = torch.stack([(p[:, ABNORMAL] + 1 - p[:, NORMAL]) / 2 for p in layer_probabilities]).sum(dim=0)
    return torch.from_numpy(smooth(total.float().cpu().numpy(), sigma))


def smooth(maps: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian filter over the last two axes; scipy's "reflect" repeats the edge pixel, as in the paper's code."""
    return gaussian_filter(maps, sigma=(0, sigma, sigma)) if sigma > 0 else maps

"""From image, patch and text features to probabilities, image scores and anomaly maps (paper, 3.1 and 3.4)."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from AnomalyCLIP_lib.prompts import ABNORMAL, NORMAL

TEMPERATURE = 0.07
TRUNCATE = 4  # the Gaussian ends at so many standard deviations


def normalised(features: Tensor) -> Tensor:
    """float32, L2-normalised along the last dimension."""
    return F.normalize(features.float(), dim=-1)


def logits(features: Tensor, text_features: Tensor, temperature: float | Tensor = TEMPERATURE) -> Tensor:
    """Cosine similarities over the temperature, (B, N, 2), column 0 normal, column 1 abnormal.

    Args:
        features: (B, N, D), L2-normalised.
        text_features: (2, D), L2-normalised; or (B, 2, D), each image's own.
    """
    return features @ text_features.mT / temperature


def image_logits(image_features: Tensor, text_features: Tensor, temperature: float | Tensor = TEMPERATURE) -> Tensor:
    """`logits` of image features (B, D): (B, 2)."""
    return logits(image_features[:, None], text_features, temperature)[:, 0]


def image_scores(image_features: Tensor, text_features: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Probability that each image is anomalous, (B,), in [0, 1]. Arguments as for `image_logits`."""
    return image_logits(image_features, text_features, temperature).softmax(dim=-1)[:, ABNORMAL]


def patch_probabilities(
    patch_features: Tensor, text_features: Tensor, image_size: int, temperature: float = TEMPERATURE
) -> Tensor:
    """Probabilities of normal and abnormal for every pixel, from one layer.

    The softmax is taken per patch and upsampled afterwards: bilinear interpolation of logits would give other maps.

    Args:
        patch_features: (B, 1 + N, D), L2-normalised, class token first; N a square number.
        text_features: (2, D), L2-normalised; or (B, 2, D), each image's own.
        image_size: S.

    Returns:
        (B, 2, S, S), values in [0, 1] that sum to 1 over the channels.
    """
    probabilities = on_grid(logits(patch_features[:, 1:], text_features, temperature).softmax(dim=-1))
    return F.interpolate(probabilities, size=(image_size, image_size), mode="bilinear", align_corners=False)


def on_grid(values: Tensor) -> Tensor:
    """Values of patches in row order, (B, N, K) with N a square number -> (B, K, G, G)."""
    grid = round(values.shape[1] ** 0.5)
    return values.transpose(1, 2).unflatten(2, (grid, grid))


def anomaly_maps(layer_probabilities: Sequence[Tensor], sigma: float) -> Tensor:
    """Sum of the layers' maps, smoothed.

    Args:
        layer_probabilities: per layer (B, 2, S, S), from `patch_probabilities`.
        sigma: standard deviation of the Gaussian in pixels; 0 leaves the sum as it is.

    Returns:
        (B, S, S) float32 on the CPU, in [0, number of layers].
    """
    total = torch.zeros_like(layer_probabilities[0][:, ABNORMAL], dtype=torch.float32)
    for p in layer_probabilities:
        total += (p[:, ABNORMAL] + 1 - p[:, NORMAL]) / 2
    return smooth(total, sigma).cpu()


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian filter as `scipy.ndimage.gaussian_filter` (truncate 4, "reflect": the edge pixel is repeated).

    Args:
        maps: (..., H, W) float, on any device; sides shorter than the filter are no problem.
        sigma: standard deviation in pixels; 0 leaves the maps as they are.

    Returns:
        the same shape, type and device.
    """
    if sigma == 0:
        return maps
    # On CUDA a product of float32 matrices may be rounded to TF32; of float64 ones it is not.
    dtype = torch.float64 if maps.is_cuda else torch.float32
    rows, columns = (_gaussian_matrix(side, sigma, maps.device, dtype) for side in maps.shape[-2:])
    return (rows @ maps.to(dtype) @ columns.T).to(maps.dtype)


@lru_cache(maxsize=8)
def _gaussian_matrix(side: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(side, side): what every pixel of a line takes from every other, those beyond the edges folded back."""
    sigma = min(sigma, 100.0 * side)  # wider ones give the line's mean all the same
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = (-0.5 * (offsets.double() / sigma) ** 2).exp()
    period = 2 * side  # of a line and its reflection
    weights = torch.zeros(period, dtype=torch.float64).index_add_(0, offsets % period, weights / weights.sum())
    sources = (torch.arange(side)[:, None] + torch.arange(period)) % period
    sources = torch.where(sources < side, sources, period - 1 - sources)
    matrix = torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, sources, weights.expand(side, -1))
    return matrix.to(device, dtype)

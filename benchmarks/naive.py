"""AnomalyCLIP computed in its plainest form, slow and obvious: what tests and benchmarks hold the code against.

Attention is two matmuls and a softmax, images are encoded one at a time and again in every epoch, AUPRO is a loop
over thresholds that visits every region at each of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import roc_auc_score
from torch import Tensor

TEMPERATURE = 0.07
NORMAL, ABNORMAL = 0, 1


def encode(
    visual: Any, images: Tensor, layers: Sequence[int], dpam: str = "vv", dpam_layer: int = 1
) -> tuple[Tensor, list[Tensor]]:
    """What `visual_encoder.VisualEncoder` returns for the same arguments."""
    each = [_encode_one(visual, image[None], layers, dpam, dpam_layer) for image in images]
    image_features = torch.cat([image_feature for image_feature, _ in each])
    return image_features, [torch.cat([taken[i] for _, taken in each]) for i in range(len(layers))]


def _encode_one(
    visual: Any, image: Tensor, layers: Sequence[int], dpam: str, dpam_layer: int
) -> tuple[Tensor, list[Tensor]]:
    x = visual.ln_pre(_tokens(visual, image))
    local, taken = None, {}
    blocks = list(visual.transformer.resblocks)
    for number, block in enumerate(blocks, start=1):
        attention = block.attn
        q, k, v = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=2)
        if dpam != "none" and number > len(blocks) - (dpam_layer - 1):
            pair = {"vv": (v, v), "qq": (q, q), "kk": (k, k), "qk": (q, k)}[dpam]
            local = (x if local is None else local) + _attend(attention, *pair, v)
        x = x + _attend(attention, q, k, v)
        x = x + block.mlp(block.ln_2(x))
        taken[number] = x if local is None else local
    return x[:, 0] @ visual.proj, [visual.ln_post(taken[layer]) @ visual.proj for layer in layers]


def _tokens(visual: Any, image: Tensor) -> Tensor:
    """(1, 3, S, S) -> (1, 1 + N, C), positions added."""
    x = F.conv2d(image, visual.conv1.weight, stride=visual.conv1.stride)  # (1, C, G, G')
    height, width = x.shape[2:]
    stored = visual.positional_embedding
    old = round((stored.shape[0] - 1) ** 0.5)
    positions = stored[1:].T.reshape(1, -1, old, old)
    positions = F.interpolate(positions, (height, width), mode="bilinear", align_corners=False)[0].flatten(1).T
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), x.flatten(2).transpose(1, 2)], dim=1)  # (1, 1 + N, C)
    return x + torch.cat([stored[:1], positions])


def window_features(visual: Any, image: Tensor, scale: int) -> Tensor:
    """WinCLIP's embeddings of one image (1, 3, S, S), a forward pass for each window: (windows, D), normalised."""
    tokens = _tokens(visual, image)
    grid = round((tokens.shape[1] - 1) ** 0.5)
    features = []
    for top in range(grid - scale + 1):
        for left in range(grid - scale + 1):
            patches = [1 + (top + row) * grid + left + column for row in range(scale) for column in range(scale)]
            x = visual.ln_pre(tokens[:, [0, *patches]])
            for block in visual.transformer.resblocks:
                weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
                x = x + _attend(block.attn, *F.linear(block.ln_1(x), weight, bias).chunk(3, dim=2))
                x = x + block.mlp(block.ln_2(x))
            features.append(visual.ln_post(x[:, 0]) @ visual.proj)
    return F.normalize(torch.cat(features), dim=-1)


def _attend(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = attention.num_heads
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))  # (1, heads, 1 + N, C / heads)
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return attention.out_proj((weights @ v).transpose(1, 2).flatten(2))


def smooth(maps: np.ndarray, sigma: float) -> np.ndarray:
    """The Gaussian filter of the paper's code on (B, S, S)."""
    return gaussian_filter(maps, sigma=(0, sigma, sigma))


def patch_probabilities(patch_features: Tensor, text_features: Tensor, image_size: int) -> Tensor:
    """(B, 2, S, S) from (B, 1 + N, D) and (2, D), both normalised."""
    probabilities = (patch_features[:, 1:] @ text_features.T / TEMPERATURE).softmax(dim=-1)
    grid = round(probabilities.shape[1] ** 0.5)
    probabilities = probabilities.permute(0, 2, 1).reshape(-1, 2, grid, grid)
    return F.interpolate(probabilities, (image_size, image_size), mode="bilinear", align_corners=False)


def loss(logits: Tensor, labels: Tensor, layer_probabilities: Sequence[Tensor], masks: Tensor) -> Tensor:
    """The total loss, with the one-hot targets written out; arguments as for `losses.glocal_loss`."""
    total = F.cross_entropy(logits, labels)
    one_hot = F.one_hot(masks.long(), 2).permute(0, 3, 1, 2).float()  # (B, 2, S, S)
    target = one_hot.clamp(1e-5, 1 - 1e-5)
    for p in layer_probabilities:
        true = (target * p).sum(dim=1) + 1e-5
        total = total + 4 * (-((1 - true) ** 2) * true.log()).mean()
        for channel in (ABNORMAL, NORMAL):
            found, wanted = p[:, channel].flatten(1), one_hot[:, channel].flatten(1)
            dice = (2 * (found * wanted).sum(dim=1) + 1) / (found.sum(dim=1) + wanted.sum(dim=1) + 1)
            total = total + 4 * (1 - dice.mean())
    return total


def training_step(
    model: Any, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, masks: Tensor
) -> Tensor:
    """One step of the prompts with the images encoded for it; returns the total loss from before the step."""
    settings = model.settings
    with torch.no_grad():
        image_features, patch_features = encode(
            model.visual_encoder.visual, images, settings.features_list, settings.dpam, settings.dpam_layer
        )
    text_features = model.text_features()
    probabilities = [
        patch_probabilities(F.normalize(features, dim=-1), text_features, settings.image_size)
        for features in patch_features
    ]
    total = loss(F.normalize(image_features, dim=-1) @ text_features.T / TEMPERATURE, labels, probabilities, masks)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return total.detach()


def find_regions(masks: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Every 8-connected component of (N, H, W) masks: its image, and (H, W) where it lies."""
    found = []
    for image, mask in enumerate(masks):
        numbers, count = label(mask != 0, structure=np.ones((3, 3)))  # type: ignore[misc]
        found += [(image, numbers == number) for number in range(1, count + 1)]
    return found


def overlap_curve(
    masks: np.ndarray, maps: np.ndarray, thresholds: np.ndarray, regions: list[tuple[int, np.ndarray]] | None = None
) -> list[tuple[float, float]]:
    """(FPR, PRO) at every threshold."""
    regions = find_regions(masks) if regions is None else regions
    points = []
    for threshold in thresholds:
        above = maps > threshold
        points.append(
            (float(above[masks == 0].mean()), float(np.mean([above[image][where].mean() for image, where in regions])))
        )
    return points


def aupro(masks: np.ndarray, maps: np.ndarray, regions: list[tuple[int, np.ndarray]] | None = None) -> float:
    """`metrics.pixel_aupro`; masks and maps (N, H, W), regions from `find_regions`."""
    low, high = float(maps.min()), float(maps.max())
    points = overlap_curve(masks, maps, np.arange(low, high, (high - low) / 200), regions)
    rates, overlaps = np.array(sorted(point for point in points if point[0] < 0.3)).T
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    return float(((rates[1:] - rates[:-1]) * (overlaps[1:] + overlaps[:-1]) / 2).sum())


def aupro_exact(masks: np.ndarray, maps: np.ndarray) -> float:
    """`metrics.pixel_aupro_exact`, a threshold at every distinct value and one below all of them."""
    points = overlap_curve(masks, maps, np.array([-np.inf, *np.unique(maps)]))
    area, last = 0.0, (0.0, 0.0)
    for rate, overlap in points[::-1]:
        if rate > 0.3:
            share = (0.3 - last[0]) / (rate - last[0])
            rate, overlap = 0.3, last[1] + share * (overlap - last[1])
        area += (rate - last[0]) * (overlap + last[1]) / 2
        last = (rate, overlap)
        if rate == 0.3:
            break
    return area / 0.3


def pixel_auroc(masks: np.ndarray, maps: np.ndarray) -> float:
    """`metrics.pixel_auroc`, of all pixels at once."""
    return float(roc_auc_score(masks.ravel() != 0, maps.ravel()))

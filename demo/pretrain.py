"""Pretrain the demo CLIP from scratch on drawn pictures with and without a defect.

    python -m demo.pretrain

writes checkpoints/demo/clip.safetensors. About an hour on two CPU cores; two runs on one machine give the same bytes.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Normalize
from tqdm import tqdm

from AnomalyCLIP_lib.backbone import DEMO_BACKBONE, DEMO_FOLDER, find_backbone
from AnomalyCLIP_lib.files import atomic_write, output_folder
from AnomalyCLIP_lib.preprocessing import OPENAI_MEAN, OPENAI_STANDARD_DEVIATION
from AnomalyCLIP_lib.scoring import TEMPERATURE
from AnomalyCLIP_lib.settings import default_settings
from AnomalyCLIP_lib.text_encoder import TextEncoder
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from AnomalyCLIP_lib.weights import Clip, random_clip, text_tower
from command_line import run
from demo.captions import GENERAL_NOUNS, caption_pair
from demo.categories import PRETRAINING, noun
from demo.generator import picture_pair
from utils import set_seed

PICTURE_SIZE = 96  # pixels; the last fifth of the steps sees whole pictures
CROP_SIZE = 64  # pixels; the steps before see crops, which cost half
FULL_SIZE_SHARE = 0.2
CAPTION_TOKENS = 24  # no caption is longer; the causal mask makes the rest superfluous
MINIMUM_DIFFERENCE = 0.08


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, besides the pictures."""

    steps: int = 1200
    pairs_per_step: int = 48
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.05
    warm_up: float = 0.05
    contrastive_weight: float = 0.5
    state_weight: float = 1.5
    patch_weight: float = 2.0
    seed: int = 111


class PicturePairs(Dataset):
    """Picture pairs with their captions, drawn when asked for; item i depends on the seed and i alone."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.pairs_per_step

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        rng = np.random.default_rng([self.recipe.seed, index])
        category_index = int(rng.integers(len(PRETRAINING)))
        category = PRETRAINING[category_index]
        pair = picture_pair(category, PICTURE_SIZE, [self.recipe.seed, index], MINIMUM_DIFFERENCE)
        captions = caption_pair(category, pair.defect, rng)
        pictures, mask = np.stack([pair.intact, pair.damaged]), pair.mask
        if index < (1 - FULL_SIZE_SHARE) * len(self):
            rows, columns = _crop_around(mask, rng)
            pictures, mask = pictures[:, rows, columns], mask[rows, columns]
        return {
            "pictures": torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2),  # (2, 3, S, S) uint8
            "mask": torch.from_numpy(np.ascontiguousarray(mask)),  # (S, S) bool
            "tokens": tokenize(list(captions))[:, :CAPTION_TOKENS],  # (2, 24)
            "category": category_index,
            "named": int(noun(category) in captions[1] and noun(category) not in GENERAL_NOUNS),
        }


def _crop_around(mask: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
    """A random crop that holds a random pixel of the defect, so that the damaged picture stays damaged."""
    points = np.argwhere(mask)
    point = points[rng.integers(len(points))]
    starts = []
    for position, extent in zip(point, mask.shape, strict=True):
        low = max(0, position - CROP_SIZE + CROP_SIZE // 4)
        high = min(extent - CROP_SIZE, position - CROP_SIZE // 4)
        starts.append(
            int(
                rng.integers(min(low, extent - CROP_SIZE), max(high, 0) + 1)
                if low <= high
                else min(low, extent - CROP_SIZE)
            )
        )
    return slice(starts[0], starts[0] + CROP_SIZE), slice(starts[1], starts[1] + CROP_SIZE)


class PretrainingLosses(nn.Module):
    """The three losses on one batch of P picture pairs.

    Image features are computed as AnomalyCLIP computes them (class token without ln_post), and the patch loss
    acts on the local (v-v) path, so that the weights are trained for the very forward pass that uses them.
    """

    def __init__(self, clip: Clip, patch_size: int, features_list: Sequence[int], dpam_layer: int):
        super().__init__()
        self.visual_encoder = VisualEncoder(cast(VisionTransformer, clip.visual))
        self.text_encoder = TextEncoder(clip)
        self.token_embedding = text_tower(clip).token_embedding
        self.logit_scale = clip.logit_scale
        self.patch_size, self.features_list, self.dpam_layer = patch_size, features_list, dpam_layer
        self.normalise = Normalize(OPENAI_MEAN, OPENAI_STANDARD_DEVIATION)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars "contrastive", "state" and "patch".

        Args:
            batch: pictures (P, 2, 3, S, S) uint8, intact first; mask (P, S, S) bool; tokens (P, 2, 24);
                category (P,); named (P,), 0 where the captions say "object" in place of the category.
        """
        images = self.normalise(batch["pictures"].flatten(0, 1).float() / 255)  # (2 P, 3, S, S)
        tokens = batch["tokens"].flatten(0, 1)  # (2 P, 24)
        image_features, (patch_features,) = self.visual_encoder(images, self.features_list, "vv", self.dpam_layer)
        image_features = F.normalize(image_features, dim=-1)  # (2 P, D)
        patch_features = F.normalize(patch_features[:, 1:], dim=-1)  # (2 P, N, D)
        text_features = F.normalize(self.text_encoder(self.token_embedding(tokens), tokens), dim=-1)  # (2 P, D)

        pairs = text_features.unflatten(0, (-1, 2)).repeat_interleave(2, dim=0)  # (2 P, 2, D): intact, damaged
        state = torch.arange(images.shape[0]) % 2
        state_logits = torch.einsum("id,isd->is", image_features, pairs) / TEMPERATURE
        patch_logits = torch.einsum("ind,isd->ins", patch_features, pairs) / TEMPERATURE  # (2 P, N, 2)
        return {
            "contrastive": self._contrastive(image_features, text_features, batch, state),
            "state": F.cross_entropy(state_logits, state),
            "patch": self._patch(patch_logits, batch["mask"]),
        }

    def _contrastive(self, image: Tensor, text: Tensor, batch: dict[str, Tensor], state: Tensor) -> Tensor:
        """CLIP's loss where captions of the same category and state are all right answers.

        Captions that name no category would be right for half of the batch; they are left to the other losses.
        """
        key = batch["category"].repeat_interleave(2) * 2 + state
        named = batch["named"].repeat_interleave(2).bool()
        image, text, key = image[named], text[named], key[named]
        logits = self.logit_scale.exp().clamp(max=100) * image @ text.T
        target = (key[:, None] == key[None]).float()
        target = target / target.sum(dim=1, keepdim=True)  # symmetric, so it serves both directions
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def _patch(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of every patch against the share of it that is damaged; both states weigh the same."""
        share = F.avg_pool2d(mask[:, None].float(), self.patch_size).flatten(1)  # (P, N)
        damaged = torch.stack([torch.zeros_like(share), share.sqrt()], dim=1).flatten(0, 1)  # (2 P, N)
        log_probabilities = logits.log_softmax(dim=-1)
        positive = -(damaged * log_probabilities[..., 1]).sum() / damaged.sum()
        negative = -((1 - damaged) * log_probabilities[..., 0]).sum() / (1 - damaged).sum()
        return (positive + negative) / 2


def pretrain(recipe: Recipe, workers: int = 1, log_every: int = 50) -> Clip:
    """Train the demo's architecture by `recipe`; returns the open_clip model in fp32."""
    set_seed(recipe.seed)
    backbone = find_backbone(DEMO_BACKBONE)
    settings = default_settings(backbone)
    clip = random_clip(backbone).train()
    losses = PretrainingLosses(clip, backbone.patch_size, settings.features_list, settings.dpam_layer)
    optimizer = _optimizer(clip, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, recipe))
    weights = {
        "contrastive": recipe.contrastive_weight,
        "state": recipe.state_weight,
        "patch": recipe.patch_weight,
    }
    running = dict.fromkeys(weights, 0.0)
    bar = tqdm(_batches(recipe, workers), total=recipe.steps, desc="pretraining", unit="step", mininterval=5)
    for step, batch in enumerate(bar, start=1):
        parts = losses(batch)
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for name, part in parts.items():
            running[name] += part.item() / log_every
        if step % log_every == 0:
            tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in running.items()))
            running = dict.fromkeys(weights, 0.0)
    return clip.eval()


def _batches(recipe: Recipe, workers: int) -> Iterator[dict[str, Tensor]]:
    """Batches in the order of the samples, which are random already."""
    return iter(DataLoader(PicturePairs(recipe), batch_size=recipe.pairs_per_step, num_workers=workers))


def _optimizer(clip: Clip, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in clip.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in clip.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a half cosine to zero."""
    warm_up = max(1, round(recipe.warm_up * recipe.steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, recipe.steps - warm_up)))


def save_clip(clip: Clip, path: Path) -> None:
    """Write the weights in fp16 as safetensors."""
    with atomic_write(path) as temporary:
        save_file({name: value.half().contiguous() for name, value in clip.state_dict().items()}, temporary)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER / "clip.safetensors", help="the file to write")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--pairs_per_step", type=int, default=Recipe.pairs_per_step)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; another number gives other bytes")
    arguments = parser.parse_args(argv)
    output_folder(arguments.out.parent, "--out")
    torch.set_num_threads(arguments.threads)
    start = time.perf_counter()
    recipe = Recipe(steps=arguments.steps, pairs_per_step=arguments.pairs_per_step, seed=arguments.seed)
    save_clip(pretrain(recipe), arguments.out)
    print(f"wrote {arguments.out} after {(time.perf_counter() - start) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))

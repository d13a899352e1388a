"""Pretrain the demo CLIP from scratch on drawn pictures with and without a defect.

    python -m demo.pretrain

writes checkpoints/demo/clip.safetensors. About an hour on two CPU cores; two runs on one machine give the same bytes.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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
from AnomalyCLIP_lib.weights import Clip, load_clip, random_clip, text_tower
from demo.captions import GENERAL_NOUNS, caption_pair
from demo.drawing.categories import PRETRAINING, noun
from demo.drawing.generator import picture_pair
from utils import run, set_seed

PICTURE_SIZE = 96  # pixels
CROP_SIZE = 64  # pixels; crops cost half as much as whole pictures
CAPTION_TOKENS = 24  # no caption is longer; the causal mask makes the rest superfluous
PROBED_BLOCK = 7  # its input has to tell damaged patches from intact ones, on the global path


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser, from warm-up to a learning rate of zero.

    Attributes:
        steps: optimiser steps.
        crops: share of the steps, from the first, that see crops.
        minimum_difference: of the defects, see `generator.picture_pair`.
        contrastive, state, patch, probe: weights of the losses; 0 leaves one out.
    """

    steps: int
    learning_rate: float
    crops: float
    minimum_difference: float
    contrastive: float
    state: float
    patch: float
    probe: float

    def weights(self) -> dict[str, float]:
        weights = {"contrastive": self.contrastive, "state": self.state, "patch": self.patch, "probe": self.probe}
        return {name: weight for name, weight in weights.items() if weight > 0}


# The first stage learns what things are and where they are damaged; the second teaches the class token, whose
# feature is the image score, to look there. Between them the weights go through fp16, as if saved.
STAGES = (
    Stage(1200, 1e-3, 0.8, 0.08, contrastive=0.5, state=1.5, patch=2.0, probe=0.0),
    Stage(600, 7e-4, 0.0, 0.12, contrastive=0.2, state=3.0, patch=1.0, probe=1.0),
)


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, besides the pictures."""

    stages: tuple[Stage, ...] = STAGES
    pairs_per_step: int = 48
    weight_decay: float = 0.05
    warm_up: float = 0.05
    seed: int = 111

    def first_pair(self, number: int) -> int:
        """Index of the first picture pair of stage `number`, counted over all stages."""
        return sum(stage.steps for stage in self.stages[:number]) * self.pairs_per_step


class PicturePairs(Dataset):
    """One stage's picture pairs with their captions, drawn when asked for; a pair depends on seed and index alone."""

    def __init__(self, recipe: Recipe, number: int):
        self.recipe = recipe
        self.stage = recipe.stages[number]
        self.first = recipe.first_pair(number)

    def __len__(self) -> int:
        return self.stage.steps * self.recipe.pairs_per_step

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        index = self.first + position
        rng = np.random.default_rng([self.recipe.seed, index])
        category_index = int(rng.integers(len(PRETRAINING)))
        category = PRETRAINING[category_index]
        pair = picture_pair(category, PICTURE_SIZE, [self.recipe.seed, index], self.stage.minimum_difference)
        captions = caption_pair(category, pair.defect, rng)
        pictures, mask = np.stack([pair.intact, pair.damaged]), pair.mask
        if position < self.stage.crops * len(self):
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
    """The losses on one batch of P picture pairs.

    Image features are computed as AnomalyCLIP computes them (class token without ln_post), and the patch loss
    acts on the local (v-v) path, so that the weights are trained for the very forward pass that uses them. The probe
    is a linear layer, thrown away later, that makes the global path's patches carry what the class token must find.
    """

    def __init__(self, clip: Any, patch_size: int, features_list: Sequence[int], dpam_layer: int, with_probe: bool):
        super().__init__()
        self.visual_encoder = VisualEncoder(cast(VisionTransformer, clip.visual))
        self.text_encoder = TextEncoder(clip)
        self.token_embedding = text_tower(clip).token_embedding
        self.logit_scale = clip.logit_scale
        self.patch_size, self.features_list, self.dpam_layer = patch_size, features_list, dpam_layer
        self.normalise = Normalize(OPENAI_MEAN, OPENAI_STANDARD_DEVIATION)
        self.probe = nn.Linear(clip.visual.proj.shape[0], 1) if with_probe else None
        self.probed: Tensor | None = None
        if with_probe:
            clip.visual.transformer.resblocks[PROBED_BLOCK - 1].ln_1.register_forward_hook(self._keep_probed)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars "contrastive", "state", "patch" and, with a probe, "probe".

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
        parts = {
            "contrastive": self._contrastive(image_features, text_features, batch, state),
            "state": F.cross_entropy(state_logits, state),
            "patch": self._patch(patch_logits, batch["mask"]),
        }
        if self.probe is not None and self.probed is not None:
            evidence = self.probe(self.probed[:, 1:])  # (2 P, N, 1)
            parts["probe"] = self._patch(torch.cat([-evidence, evidence], dim=2), batch["mask"])
        return parts

    def _keep_probed(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.probed = output

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


def pretrain(recipe: Recipe, workers: int = 1) -> Clip:
    """Train the demo's architecture by `recipe`, all stages; returns the open_clip model in fp32."""
    set_seed(recipe.seed)
    clip = random_clip(find_backbone(DEMO_BACKBONE))
    for number in range(len(recipe.stages)):
        if number > 0:
            round_to_half(clip)
        train_stage(clip, recipe, number, workers)
    return clip


def round_to_half(clip: Clip) -> None:
    """Round all weights to what fp16 holds, so that a stage starts from the same weights in memory or from a file."""
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.copy_(parameter.half())


def train_stage(clip: Clip, recipe: Recipe, number: int, workers: int = 1, log_every: int = 50) -> None:
    """Run one stage of the recipe on `clip`, in place."""
    set_seed(recipe.seed + number)
    stage = recipe.stages[number]
    backbone = find_backbone(DEMO_BACKBONE)
    settings = default_settings(backbone)
    clip.train().requires_grad_(True)
    losses = PretrainingLosses(
        clip, backbone.patch_size, settings.features_list, settings.dpam_layer, with_probe=stage.probe > 0
    )
    parameters = [*clip.parameters(), *(losses.probe.parameters() if losses.probe is not None else ())]
    optimizer = _optimizer(parameters, stage, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, stage, recipe))
    weights = stage.weights()
    running = dict.fromkeys(weights, 0.0)
    batches = DataLoader(PicturePairs(recipe, number), batch_size=recipe.pairs_per_step, num_workers=workers)
    bar = tqdm(batches, desc=f"stage {number + 1} of {len(recipe.stages)}", unit="step", mininterval=5)
    for step, batch in enumerate(bar, start=1):
        parts = losses(batch)
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        for name, part in parts.items():
            running[name] += part.item() / log_every
        if step % log_every == 0:
            tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in running.items()))
            running = dict.fromkeys(weights, 0.0)
    clip.eval()


def _optimizer(parameters: Sequence[nn.Parameter], stage: Stage, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98))


def _learning_rate_factor(step: int, stage: Stage, recipe: Recipe) -> float:
    """Linear warm-up, then a half cosine to zero."""
    warm_up = max(1, round(recipe.warm_up * stage.steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, stage.steps - warm_up)))


def save_clip(clip: Clip, path: Path) -> None:
    """Write the weights in fp16 as safetensors."""
    with atomic_write(path) as temporary:
        save_file({name: value.half().contiguous() for name, value in clip.state_dict().items()}, temporary)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER / "clip.safetensors", help="the file to write")
    parser.add_argument("--init", help="weights after the first stage: only the later one runs")
    parser.add_argument("--first_stage_only", action="store_true", help="stop where --init goes on")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; another number gives other bytes")
    arguments = parser.parse_args(argv)
    output_folder(arguments.out.parent, "--out")
    torch.set_num_threads(arguments.threads)
    start = time.perf_counter()
    recipe = Recipe(seed=arguments.seed)
    if arguments.init:
        clip = load_clip(find_backbone(DEMO_BACKBONE), arguments.init)
        train_stage(clip, recipe, number=1)
    elif arguments.first_stage_only:
        clip = pretrain(Recipe(stages=STAGES[:1], seed=arguments.seed))
    else:
        clip = pretrain(recipe)
    save_clip(clip, arguments.out)
    print(f"wrote {arguments.out} after {(time.perf_counter() - start) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))

"""Adam on the two prompts, from features of the frozen encoder (paper, 3.3)."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from AnomalyCLIP_lib.checkpoint import remove_other_epochs, write_checkpoint
from AnomalyCLIP_lib.decisions import SETTING
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.memory import is_out_of_memory
from AnomalyCLIP_lib.model import AnomalyCLIP
from pipeline.training.features import CachedBatches, EncodedBatches, FeatureBatch
from pipeline.training.progress import TrainingProgress
from pipeline.training.thresholds import find_thresholds

BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class TrainingOptions:
    """How prompts are learned.

    Attributes:
        epochs: passes over the dataset.
        learning_rate: of Adam.
        print_freq, save_freq: epochs between log lines and between checkpoints.
        dataset: label of the training set.
    """

    epochs: int
    learning_rate: float
    print_freq: int
    save_freq: int
    dataset: str


def learn(
    model: AnomalyCLIP,
    batches: EncodedBatches | CachedBatches,
    options: TrainingOptions,
    settings: Mapping[str, Any],
    save_path: Path,
    log: logging.Logger,
    progress: TrainingProgress,
) -> None:
    """Adam on the prompts; a checkpoint every `save_freq` epochs and after the last one, which gets thresholds.

    Args:
        batches: iterated over once an epoch, and once more for the thresholds.
        settings: what the checkpoints carry, from `describe_training`.
        progress: told of every completed epoch.

    Raises:
        InputError: the loss is not finite any more, an image cannot be read, or memory does not suffice.
    """
    prompts = model.prompts
    assert prompts is not None
    optimizer = torch.optim.Adam(prompts.parameters(), lr=options.learning_rate, betas=BETAS)
    for epoch in range(1, options.epochs + 1):
        start, images = time.perf_counter(), 0
        local_losses, image_losses = [], []
        bar = tqdm(batches, total=len(batches), desc=f"epoch {epoch}/{options.epochs}", leave=False, disable=None)
        for batch in bar:
            local, image = training_step(model, optimizer, batch)
            local_losses.append(local)
            image_losses.append(image)
            images += len(batch.labels)
            bar.set_postfix(local=f"{local:.4f}", image=f"{image:.4f}")
        local, image = sum(local_losses) / len(local_losses), sum(image_losses) / len(image_losses)
        last = epoch == options.epochs
        if epoch % options.print_freq == 0 or last:
            log.info(f"epoch {epoch}/{options.epochs}: local loss {local:.4f}, image loss {image:.4f}")
            tqdm.write(f"{images / (time.perf_counter() - start):.1f} images/s")
        if epoch % options.save_freq == 0 or last:
            path = save_path / f"epoch_{epoch}.pth"
            write_checkpoint(path, prompts, settings, epoch)
            if epoch <= options.save_freq:  # the first one of this run
                remove_other_epochs(save_path, path)
        progress.epoch_done(epoch, local, image)
    thresholds = find_thresholds(model, batches, options.dataset)
    log.info(
        f"thresholds: image score {thresholds['image']:.4g}, pixel {thresholds['pixel']:.4g} ({thresholds['source']})"
    )
    path = save_path / f"epoch_{options.epochs}.pth"
    write_checkpoint(path, prompts, {**settings, SETTING: thresholds}, options.epochs)
    log.info(f"the prompts are in {path}")


def training_step(model: AnomalyCLIP, optimizer: torch.optim.Optimizer, batch: FeatureBatch) -> tuple[float, float]:
    """One step of the prompts; the encoder is frozen, so its features come as they are.

    Returns:
        the local loss, its factor 4 included, and the image loss, both from before the step.

    Raises:
        InputError: the loss is not finite, or memory does not suffice; the batch of a step is never split.
    """
    try:
        loss = model.loss(batch)
        if not loss.total.isfinite():
            raise InputError("The loss is not finite any more; lower --learning_rate, or use --precision fp32.")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"The memory does not suffice for a training step on {len(batch.labels)} images; lower --batch_size or "
            "--image_size."
        ) from error
    return loss.local.item(), loss.image.item()

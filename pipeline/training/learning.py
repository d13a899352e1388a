"""Adam on the two prompts, from features of the frozen encoder (paper, 3.3)."""

import io
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from AnomalyCLIP_lib.checkpoint import write_checkpoint
from AnomalyCLIP_lib.decisions import SETTING
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from AnomalyCLIP_lib.memory import is_out_of_memory
from AnomalyCLIP_lib.model import AnomalyCLIP
from pipeline.output_folder import OutputFolder
from pipeline.training.features import CachedBatches, EncodedBatches, FeatureBatch
from pipeline.training.progress import TrainingProgress
from pipeline.training.thresholds import find_thresholds

BETAS = (0.5, 0.999)
STATE = "training.pt"
"""In the hidden folder of the run: what `--resume` goes on from. Removed when the training is done."""


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


def checkpoint_name(epoch: int) -> str:
    """The file of an epoch, from 1."""
    return f"epoch_{epoch}.pth"


def read_state(folder: OutputFolder, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a training that was stopped left; None where it has not completed an epoch.

    Raises:
        InputError: it was trained with other settings, or the file is damaged.
    """
    path = folder.state / STATE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = state["settings"]
    except Exception as error:  # torch, pickle and zip each have error types of their own
        raise InputError(f"{path} is damaged, so --resume is impossible; train anew with --overwrite.") from error
    for name in {**before, **settings}:
        if before.get(name) != settings.get(name) and name != "versions":
            raise InputError(
                f"--resume is impossible: the training in {folder.path} has {name} {before.get(name)}, and this one "
                f"{settings.get(name)}; use the same, or another --save_path."
            )
    return state


def learn(
    model: AnomalyCLIP,
    batches: EncodedBatches | CachedBatches,
    options: TrainingOptions,
    settings: Mapping[str, Any],
    folder: OutputFolder,
    log: logging.Logger,
    progress: TrainingProgress,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Adam on the prompts; a checkpoint every `save_freq` epochs and after the last one, which gets thresholds.

    Args:
        batches: iterated over once an epoch, and once more for the thresholds.
        settings: what the checkpoints carry, from `describe_training`.
        progress: told of every completed epoch.
        state: from `read_state`: where to go on.

    Raises:
        InputError: the loss is not finite any more, an image cannot be read, or memory does not suffice.
    """
    prompts = model.prompts
    assert prompts is not None
    optimizer = torch.optim.Adam(prompts.parameters(), lr=options.learning_rate, betas=BETAS)
    done = 0
    if state is not None:
        prompts.load_state_dict(state["prompts"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        progress.restore(state["progress"])
        done = state["epoch"]
    whole = time.perf_counter()
    for epoch in range(done + 1, options.epochs + 1):
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
        seconds = time.perf_counter() - start
        if epoch % options.print_freq == 0 or epoch == options.epochs:
            log.info(
                f"epoch {epoch}/{options.epochs}: local loss {local:.4f}, image loss {image:.4f}, "
                f"{seconds:.1f} s, {images / seconds:.1f} images/s"
            )
        progress.epoch_done(epoch, local, image)
        if epoch % options.save_freq == 0 and epoch < options.epochs:
            write_checkpoint(folder.claim(checkpoint_name(epoch)), prompts, settings, epoch)
        buffer = io.BytesIO()
        torch.save(
            {
                "settings": dict(settings),
                "epoch": epoch,
                "prompts": prompts.state_dict(),
                "optimizer": optimizer.state_dict(),
                "order": batches.order_state(),
                "random": torch.get_rng_state(),
                "progress": progress.state(),
            },
            buffer,
        )
        with atomic_write(folder.state / STATE, durable=True) as temporary:
            temporary.write_bytes(buffer.getvalue())
    thresholds = find_thresholds(model, batches, options.dataset)
    log.info(
        f"thresholds: image score {thresholds['image']:.4g}, pixel {thresholds['pixel']:.4g} ({thresholds['source']})"
    )
    path = folder.claim(checkpoint_name(options.epochs))
    write_checkpoint(path, prompts, {**settings, SETTING: thresholds}, options.epochs)
    (folder.state / STATE).unlink()
    log.info(f"the prompts are in {path}, learned in {time.perf_counter() - whole:.0f} s")


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

"""Learn the two prompts on an auxiliary dataset.

python train.py --train_data_path /data/visa --dataset visa --save_path checkpoints/trained_on_visa
torchrun --nproc_per_node=4 train.py ...    # four processes share the encoding
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from AnomalyCLIP_lib.backbone import CHECKPOINTS
from AnomalyCLIP_lib.checkpoint import describe_training, refuse_later_epochs, write_checkpoint
from AnomalyCLIP_lib.distributed import Ranks, process_group
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.loading import load_for_training
from AnomalyCLIP_lib.losses import glocal_loss
from AnomalyCLIP_lib.memory import is_out_of_memory
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.scoring import image_logits
from AnomalyCLIP_lib.thresholds import SETTING
from command_line import add_model_flags, positive, run, typed_settings
from dataset import (
    AnomalyDataset,
    check_images,
    check_masks,
    mask_thresholds,
    read_index,
    summary,
    thresholds_text,
)
from prompt_ensemble import PromptLearner
from reporting.training_progress import TrainingProgress
from training_features import CACHE_DTYPES, CachedBatches, CacheOptions, EncodedBatches, feature_batches
from training_thresholds import find_thresholds
from utils import open_log, set_seed, silent_log

BETAS = (0.5, 0.999)
CACHE_FOLDER = "feature_cache"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.feature_cache == "off" and arguments.feature_cache_required:
        raise InputError("--feature_cache_required contradicts --feature_cache off; leave one of them away.")
    with process_group(arguments.device) as ranks:
        _prepare_and_train(arguments, ranks)
    return 0


def _prepare_and_train(arguments: argparse.Namespace, ranks: Ranks) -> None:
    index = read_index(arguments.train_data_path)
    check_images(index)
    notices = check_masks(index, training=True)
    entries = index.split("test")  # as in the paper: the auxiliary dataset's test split, which has anomalies
    if not entries:
        raise InputError(f"{index.root} lists no test images, and prompts are learned on those; check its meta.json.")

    if len({entry.anomaly for entry in entries}) < 2:
        raise InputError(f"{index.root} has images of one kind only; prompts are learned on normal and anomalous ones.")

    set_seed(arguments.seed)
    model = load_for_training(
        arguments.backbone,
        arguments.pretrained,
        arguments.init_from,
        typed_settings(arguments),
        ranks.device,
        arguments.cache_dir,
        arguments.compile,
    )
    save_path = arguments.save_path or CHECKPOINTS / f"trained_on_{arguments.dataset}"
    refuse_later_epochs(Path(save_path), arguments.epoch)
    save_path = output_folder(save_path, "--save_path")
    log = open_log(save_path) if ranks.is_main else silent_log()
    for line in (summary(index), model.describe(), *model.provenance.notices, *notices):
        log.info(line)
    thresholds = mask_thresholds(entries, arguments.mask_threshold)
    log.info(f"mask threshold: {thresholds_text(thresholds)}; settings: {model.settings.plain()}")

    dataset = AnomalyDataset(entries, model.preprocess, model.settings.image_size, arguments.mask_threshold)
    cache = CacheOptions(
        None if arguments.feature_cache == "off" else Path(arguments.feature_cache or save_path.parent / CACHE_FOLDER),
        arguments.feature_cache_dtype,
        arguments.feature_cache_required,
    )
    batches = feature_batches(
        model, dataset, arguments.batch_size, arguments.seed, arguments.workers, cache, ranks, log.info
    )
    training = {
        "train_dataset": arguments.dataset,
        "train_dataset_hash": index.digest(),
        "epochs": arguments.epoch,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "mask_threshold": arguments.mask_threshold,
    }
    if ranks.is_main and batches is not None:
        progress = TrainingProgress(model, entries, arguments.mask_threshold, save_path, log.info)
        train(model, batches, len(dataset), arguments, training, save_path, log, progress)
    elif batches is not None:  # this process encodes, the main one learns, and then looks for thresholds
        for _ in range(arguments.epoch + 1):
            for _ in batches:
                pass


def train(
    model: AnomalyCLIP,
    batches: EncodedBatches | CachedBatches,
    images: int,
    arguments: argparse.Namespace,
    training: dict[str, Any],
    save_path: Path,
    log: logging.Logger,
    progress: TrainingProgress,
) -> None:
    """Adam on the prompts; a checkpoint every `save_freq` epochs and after the last one, which gets thresholds.

    Args:
        batches: iterated over once an epoch, and once more for the thresholds.
        images: how many an epoch has.
        progress: told of every completed epoch.

    Raises:
        InputError: the loss is not finite any more, an image cannot be read, or memory does not suffice.
    """
    prompts = model.prompts
    assert isinstance(prompts, PromptLearner)
    settings = describe_training(
        model.settings, model.backbone, model.provenance.fingerprint, model.provenance.pretrained, training
    )
    optimizer = torch.optim.Adam(prompts.parameters(), lr=arguments.learning_rate, betas=BETAS)
    for epoch in range(1, arguments.epoch + 1):
        start = time.perf_counter()
        local_losses, image_losses = [], []
        bar = tqdm(batches, total=len(batches), desc=f"epoch {epoch}/{arguments.epoch}", leave=False, disable=None)
        for batch in bar:
            local, image = training_step(
                model, optimizer, batch.image_features, batch.patch_features, batch.labels, batch.masks
            )
            local_losses.append(local)
            image_losses.append(image)
            bar.set_postfix(local=f"{local:.4f}", image=f"{image:.4f}")
        local, image = sum(local_losses) / len(local_losses), sum(image_losses) / len(image_losses)
        if epoch % arguments.print_freq == 0 or epoch == arguments.epoch:
            log.info(f"epoch {epoch}/{arguments.epoch}: local loss {local:.4f}, image loss {image:.4f}")
            tqdm.write(f"{images / (time.perf_counter() - start):.1f} images/s")
        if epoch % arguments.save_freq == 0 or epoch == arguments.epoch:
            write_checkpoint(save_path / f"epoch_{epoch}.pth", prompts, settings, epoch)
        progress.epoch_done(epoch, local, image)
    thresholds = find_thresholds(model, batches, arguments.dataset)
    log.info(
        f"thresholds: image score {thresholds['image']:.4g}, pixel {thresholds['pixel']:.4g} ({thresholds['source']})"
    )
    path = save_path / f"epoch_{arguments.epoch}.pth"
    write_checkpoint(path, prompts, settings | {SETTING: thresholds}, arguments.epoch)
    log.info(f"the prompts are in {path}")


def training_step(
    model: AnomalyCLIP,
    optimizer: torch.optim.Optimizer,
    image_features: Tensor,
    patch_features: Sequence[Tensor],
    labels: Tensor,
    masks: Tensor,
) -> tuple[float, float]:
    """One step of the prompts; the encoder is frozen, so its features come as they are.

    Args:
        image_features, patch_features: from `model.encode_image`.
        labels: (B,) int64, 1 anomalous.
        masks: (B, S, S), 0 or 1.

    Returns:
        the local loss, its factor 4 included, and the image loss, both from before the step.

    Raises:
        InputError: the loss is not finite, or memory does not suffice; the batch of a step is never split.
    """
    try:
        text_features = model.text_features()
        loss = glocal_loss(
            image_logits(image_features, text_features),
            labels.to(model.device),
            model.layer_probabilities(patch_features, text_features),
            masks.to(model.device),
        )
        if not loss.total.isfinite():
            raise InputError("The loss is not finite any more; lower --learning_rate, or use --precision fp32.")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"The memory does not suffice for a training step on {len(labels)} images; lower --batch_size or "
            "--image_size."
        ) from error
    return loss.local.item(), loss.image.item()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_path", required=True, help="folder with meta.json, or the file itself")
    parser.add_argument("--save_path", help="folder of the checkpoints (default: checkpoints/trained_on_<dataset>)")
    parser.add_argument("--dataset", default="mvtec", help="label of the training dataset (default: %(default)s)")
    parser.add_argument("--init_from", help="start from this checkpoint's prompts, at epoch 0")
    parser.add_argument("--epoch", type=positive, default=15, help="default: %(default)s")
    parser.add_argument("--learning_rate", type=_learning_rate, default=0.001, help="default: %(default)s")
    parser.add_argument("--batch_size", type=positive, default=8, help="default: %(default)s")
    parser.add_argument("--print_freq", type=positive, default=1, help="epochs between log lines (%(default)s)")
    parser.add_argument("--save_freq", type=positive, default=1, help="epochs between checkpoints (%(default)s)")
    add_model_flags(parser)
    cache = parser.add_argument_group("feature cache", "images are encoded once; later runs use the features again")
    cache.add_argument(
        "--feature_cache",
        metavar="DIR|off",
        help=f"where features are kept (default: {CACHE_FOLDER}/ in the parent of --save_path)",
    )
    cache.add_argument(
        "--feature_cache_dtype", choices=tuple(CACHE_DTYPES), default="fp32", help="default: %(default)s"
    )
    cache.add_argument(
        "--feature_cache_required", action="store_true", help="stop where the cache cannot be used; default: go on"
    )
    return parser


def _learning_rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


if __name__ == "__main__":
    raise SystemExit(run(main))

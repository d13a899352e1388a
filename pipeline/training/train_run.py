"""A training run, from the flags of train.py to its checkpoints."""

import argparse
from pathlib import Path

from AnomalyCLIP_lib.backbone import CHECKPOINTS
from AnomalyCLIP_lib.checkpoint import describe_training, refuse_later_epochs
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.loading import load_for_training
from dataset import (
    AnomalyDataset,
    check_images,
    check_masks,
    mask_thresholds,
    read_index,
    summary,
    thresholds_text,
)
from pipeline.distributed import Ranks
from pipeline.flags import CACHE_FOLDER, typed_settings
from pipeline.training.features import CacheOptions, feature_batches, shuffled_batches
from pipeline.training.learning import TrainingOptions, learn
from pipeline.training.progress import TrainingProgress
from utils import open_log, set_seed, silent_log


def train(arguments: argparse.Namespace, ranks: Ranks) -> None:
    """Learn the prompts that the flags of train.py describe.

    Raises:
        InputError: the flags, the dataset or the checkpoint do not fit, or an image cannot be read.
    """
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
        device=ranks.device,
        cache_dir=arguments.cache_dir,
        compile=arguments.compile,
        **typed_settings(arguments),
    )
    save_path = arguments.save_path or CHECKPOINTS / f"trained_on_{arguments.dataset}"
    refuse_later_epochs(Path(save_path), arguments.epoch)
    save_path = output_folder(save_path, "--save_path")
    log = open_log(save_path / "log.txt") if ranks.is_main else silent_log()
    for line in (summary(index), model.describe(), *model.provenance.notices, *notices):
        log.info(line)
    thresholds = mask_thresholds(entries, arguments.mask_threshold)
    log.info(f"mask threshold: {thresholds_text(thresholds)}; settings: {model.settings.to_dict()}")

    dataset = AnomalyDataset(entries, model.preprocess, arguments.mask_threshold)
    cache = CacheOptions(
        None if arguments.feature_cache == "off" else Path(arguments.feature_cache or save_path.parent / CACHE_FOLDER),
        arguments.feature_cache_dtype,
        arguments.feature_cache_required,
    )
    order = shuffled_batches(len(dataset), arguments.batch_size, arguments.seed)
    batches = feature_batches(model, dataset, order, arguments.workers, cache, ranks, log.info)
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
        provenance = model.provenance
        settings = describe_training(
            model.settings, model.backbone, provenance.fingerprint, provenance.pretrained, training
        )
        options = TrainingOptions(
            arguments.epoch, arguments.learning_rate, arguments.print_freq, arguments.save_freq, arguments.dataset
        )
        progress = TrainingProgress(model, entries, arguments.mask_threshold, save_path, log.info)
        learn(model, batches, options, settings, save_path, log, progress)
    elif batches is not None:  # this process encodes, the main one learns, and then looks for thresholds
        for _ in range(arguments.epoch + 1):
            for _ in batches:
                pass

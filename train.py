"""Learn the two prompts on an auxiliary dataset.

python train.py --train_data_path /data/visa --dataset visa --save_path checkpoints/trained_on_visa
torchrun --nproc_per_node=4 train.py ...    # four processes share the encoding
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from AnomalyCLIP_lib.backbone import CHECKPOINTS
from AnomalyCLIP_lib.checkpoint import refuse_later_epochs
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
from pipeline.distributed import Ranks, process_group
from pipeline.flags import add_model_flags, typed_settings
from pipeline.training.features import CACHE_DTYPES, CacheOptions, feature_batches
from pipeline.training.learning import learn
from pipeline.training.progress import TrainingProgress
from utils import open_log, positive, run, set_seed, silent_log

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
    log.info(f"mask threshold: {thresholds_text(thresholds)}; settings: {model.settings.to_dict()}")

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
        learn(model, batches, len(dataset), arguments, training, save_path, log, progress)
    elif batches is not None:  # this process encodes, the main one learns, and then looks for thresholds
        for _ in range(arguments.epoch + 1):
            for _ in batches:
                pass


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

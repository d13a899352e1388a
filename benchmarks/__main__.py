"""Measure what this repository computes against the plain computation, in pairs, and print a table.

    python -m benchmarks                                     # everything, at full size: hours on two cores
    python -m benchmarks --only encoder --batch 1
    python -m benchmarks --only scaling                      # train.py and test.py on 1, 4 and 16 times as many images
    python -m benchmarks --backbone ViT-B/32 --image_size 224 --images 4 --maps 64 --side 128 --pictures 2   # small

Weights are drawn at random: times do not depend on them.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence

import torch

from AnomalyCLIP_lib.backbone import PAPER_BACKBONE
from benchmarks import encoding, pixel_metrics
from benchmarks.host import host
from benchmarks.scaling import COMMANDS, MULTIPLES, scaling
from benchmarks.table import Row, table
from benchmarks.training import cached_training
from benchmarks.windows import BACKBONE as WINDOWS_BACKBONE
from benchmarks.windows import window_embeddings
from utils import positive, run

PARTS = (
    "encoder",
    "training",
    "cached_training",
    "gaussian",
    "aupro",
    "accuracy",
    "memory",
    "scaling",
    "windows",
    "host",
)
SCALING_BACKBONE, SCALING_IMAGE_SIZE = "ViT-B/16", 224  # so that 16 times as many images take minutes, not hours


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and print their rows as one Markdown table."""
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{os.cpu_count()} cores, {arguments.threads} threads, torch {torch.__version__}", flush=True)
    rows = []
    for part in arguments.only or PARTS:
        for row in _rows(part, arguments):
            print(" | ".join(row.cells()), flush=True)
            rows.append(row)
    print("\n" + table(rows))
    return 0


def _rows(part: str, arguments: argparse.Namespace) -> Iterator[Row]:
    repetitions, side = arguments.repetitions, arguments.side
    if part in ("encoder", "training", "cached_training"):
        model = encoding.random_model(arguments.backbone or PAPER_BACKBONE, arguments.image_size)
        if part == "encoder":
            yield from encoding.encoder(model, arguments.batch, repetitions, arguments.compile)
        elif part == "training":
            yield encoding.training_step(model, arguments.batch, repetitions)
        else:
            yield cached_training(
                model, arguments.trained, arguments.trained_batch, arguments.epochs, arguments.naive_epochs
            )
    elif part == "windows":
        yield window_embeddings(arguments.backbone or WINDOWS_BACKBONE, arguments.batch, repetitions)
    elif part == "memory":
        yield from pixel_metrics.streaming_memory(arguments.maps, side)
    elif part == "scaling":
        image_size = arguments.image_size or (None if arguments.backbone else SCALING_IMAGE_SIZE)
        yield from scaling(
            arguments.backbone or SCALING_BACKBONE,
            image_size,
            arguments.pictures,
            arguments.scaling_epochs,
            arguments.commands,
            arguments.multiples,
        )
    elif part == "host":
        yield from host(arguments.pictures, arguments.workers)
    elif part == "aupro":
        yield from pixel_metrics.aupro(arguments.images, side, repetitions)
    else:
        single: dict[str, Callable[[], Row]] = {
            "gaussian": lambda: pixel_metrics.gaussian(side, repetitions),
            "accuracy": lambda: pixel_metrics.streaming_accuracy(arguments.images, side),
        }
        yield single[part]()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="run only these parts")
    parser.add_argument(
        "--backbone", help=f"default: {PAPER_BACKBONE}; of scaling {SCALING_BACKBONE}, of windows {WINDOWS_BACKBONE}"
    )
    parser.add_argument(
        "--image_size", type=positive, help=f"default: the backbone's (518); of scaling {SCALING_IMAGE_SIZE}"
    )
    parser.add_argument("--repetitions", type=positive, default=3, help="counted pairs (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")

    model = parser.add_argument_group("encoder, training, windows: one step that encodes its images")
    model.add_argument("--batch", type=positive, default=2, help="images encoded at once (default: %(default)s)")
    model.add_argument("--compile", action="store_true", help="also measure torch.compile, which needs a C++ compiler")

    cached = parser.add_argument_group("cached_training: a whole run")
    cached.add_argument("--trained", type=positive, default=16, help="images (default: %(default)s)")
    cached.add_argument("--trained_batch", type=positive, default=8, help="default: %(default)s")
    cached.add_argument("--epochs", type=positive, default=15, help="default: %(default)s")
    cached.add_argument(
        "--naive_epochs",
        type=positive,
        default=1,
        help="of these the plain computation goes through so many; all: learned prompts are compared (%(default)s)",
    )

    pixels = parser.add_argument_group("gaussian, aupro, accuracy, memory: pixel metrics")
    pixels.add_argument("--images", type=positive, default=24, help="maps compared exactly (default: %(default)s)")
    pixels.add_argument("--maps", type=positive, default=10_000, help="maps counted in memory (default: %(default)s)")
    pixels.add_argument("--side", type=positive, default=518, help="of the maps, in pixels (default: %(default)s)")

    whole = parser.add_argument_group("scaling, host: whole runs of train.py and test.py")
    whole.add_argument("--workers", type=positive, default=2, help="of host (default: %(default)s)")
    whole.add_argument("--pictures", type=positive, default=24, help="of the smallest run (default: %(default)s)")
    whole.add_argument("--multiples", type=positive, nargs="+", default=MULTIPLES, help="default: 1 4 16")
    whole.add_argument("--commands", choices=COMMANDS, nargs="+", default=COMMANDS, help="default: both")
    whole.add_argument("--scaling_epochs", type=positive, default=3, help="of training (default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))

"""Measure what this repository computes against the plain computation, in pairs, and print a table.

    python -m benchmarks                                     # everything, about an hour on two cores
    python -m benchmarks --only encoder --batch 1
    python -m benchmarks --backbone ViT-B/32 --image_size 224 --images 4 --maps 64 --side 128   # a minute

Weights are drawn at random: times do not depend on them.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence

import torch

from AnomalyCLIP_lib.backbone import PAPER_BACKBONE
from benchmarks import encoding, pixel_metrics
from benchmarks.table import Row, table
from command_line import positive, run

PARTS = ("encoder", "training", "gaussian", "aupro", "accuracy", "memory")


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
    if part in ("encoder", "training"):
        model = encoding.random_model(arguments.backbone, arguments.image_size)
        if part == "encoder":
            yield from encoding.encoder(model, arguments.batch, repetitions, arguments.compile)
        else:
            yield encoding.training_step(model, arguments.batch, repetitions)
    elif part == "memory":
        yield from pixel_metrics.streaming_memory(arguments.maps, side)
    else:
        single: dict[str, Callable[[], Row]] = {
            "gaussian": lambda: pixel_metrics.gaussian(side, repetitions),
            "aupro": lambda: pixel_metrics.aupro(arguments.images, side, repetitions),
            "accuracy": lambda: pixel_metrics.streaming_accuracy(arguments.images, side, arguments.cells),
        }
        yield single[part]()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="leave the other parts out")
    parser.add_argument("--backbone", default=PAPER_BACKBONE, help="default: %(default)s")
    parser.add_argument("--image_size", type=positive, help="default: the backbone's (518)")
    parser.add_argument("--batch", type=positive, default=2, help="images encoded at once (default: %(default)s)")
    parser.add_argument("--repetitions", type=positive, default=3, help="counted pairs (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile, which needs a C++ compiler")
    parser.add_argument("--images", type=positive, default=24, help="maps compared exactly (default: %(default)s)")
    parser.add_argument("--maps", type=positive, default=10_000, help="maps counted in memory (default: %(default)s)")
    parser.add_argument("--side", type=positive, default=518, help="of the maps, in pixels (default: %(default)s)")
    parser.add_argument("--cells", type=positive, default=2**20, help="of the comparison (default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))

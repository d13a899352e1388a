"""Whole runs of train.py and test.py on 1, 4 and 16 times as many images: time grows with them, memory does not.

Each run is the command itself, flags and files included, in a process of its own.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from AnomalyCLIP_lib.backbone import find_backbone
from AnomalyCLIP_lib.settings import resolve_settings
from AnomalyCLIP_lib.weights import random_clip
from benchmarks.drawn_dataset import draw_dataset
from benchmarks.processes import in_a_process, largest_child, peak_memory
from benchmarks.table import Row
from benchmarks.timing import Spent, measured

COMMANDS = ("training", "testing")
MULTIPLES = (1, 4, 16)


@dataclass(frozen=True)
class Run:
    """What a run took.

    Attributes:
        spent: from reading the flags to the last file; importing torch is left out.
        peak: largest resident memory of the process, MB.
        child: largest resident memory of one of its reading processes, MB; most of it is shared with the process.
    """

    spent: Spent
    peak: float
    child: float


def scaling(
    backbone: str,
    image_size: int | None,
    images: int,
    epochs: int,
    commands: Sequence[str] = COMMANDS,
    multiples: Sequence[int] = MULTIPLES,
) -> Iterator[Row]:
    """A row per command and number of images.

    From the second row on, what a further image took: the difference to the row before, so that the start-up, which
    all of them have in common, is in neither.

    Args:
        images: in the smallest run.
        epochs: of training.
    """
    architecture = find_backbone(backbone)
    side = resolve_settings({"image_size": image_size}, None, architecture)[0].image_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_file(random_clip(architecture).state_dict(), folder / "weights.safetensors")
        model = ["--backbone", backbone, "--pretrained", str(folder / "weights.safetensors"), "--device", "cpu"]
        model += ["--image_size", str(side)]
        for multiple in multiples:
            draw_dataset(folder / f"{multiple}", multiple * images, side)
        for command in commands:
            smaller: tuple[int, Spent] | None = None
            for multiple in multiples:
                count = multiple * images
                flags = _flags(command, folder / f"{multiple}", folder / f"{command}_{multiple}", epochs)
                run = in_a_process(run_command, command, [*flags, *model], torch.get_num_threads())
                yield _row(command, architecture.name, side, count, epochs, run, smaller)
                smaller = count, run.spent


def run_command(command: str, flags: Sequence[str], threads: int) -> Run:
    """`train.main` or `test.main` in this process, its output thrown away."""
    import test
    import train

    torch.set_num_threads(threads)
    main = {"training": train.main, "testing": test.main}[command]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _, spent = measured(lambda: main(flags))
    return Run(spent, peak_memory(), largest_child())


def _flags(command: str, dataset: Path, output: Path, epochs: int) -> list[str]:
    if command == "training":  # into a folder of its own, beside which the cache of its own lies
        data = ["--train_data_path", str(dataset), "--dataset", "drawn"]
        return [*data, "--save_path", str(output / "prompts"), "--epoch", str(epochs)]
    return ["--data_path", str(dataset), "--save_path", str(output), "--checkpoint_path", "handwritten"]


def _row(
    command: str, backbone: str, side: int, count: int, epochs: int, run: Run, smaller: tuple[int, Spent] | None
) -> Row:
    further = ""
    if smaller is not None:
        further = f", {(run.spent - smaller[1]) / (count - smaller[0])} a further image"
    what = f"{command}, {epochs} epochs" if command == "training" else command
    memory = f"{run.peak:.0f} MB (a reader {run.child:.0f} MB)"
    return Row(f"{what}, {backbone} at {side}, {count} images", "", f"{run.spent}{further}, peak {memory}")

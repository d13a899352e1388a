"""Find anomalies: on a dataset, with the metrics of the paper, or on single images.

python test.py --data_path /data/visa --dataset visa
python test.py --image part.png another_folder/ 'photos/**/*.png'
find photos -name '*.png' | python test.py --image - --save_path results/photos --continue
torchrun --nproc_per_node=4 test.py ...     # four processes share the images
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from AnomalyCLIP_lib.errors import InputError
from pipeline.flags import (
    LEVELS,
    NO_PICTURES,
    add_scoring_flags,
    check_inputs,
    check_threshold_flags,
    refuse_to_write_there,
)
from utils import positive, run, set_seed


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    if bool(arguments.image) == bool(arguments.data_path):
        raise InputError("Give either --data_path (a dataset) or --image (files or folders).")
    for flag, given, only_with in (
        ("--no_recursive", arguments.no_recursive, "--image"),
        ("--strict", arguments.strict, "--data_path"),
    ):
        if given and not getattr(arguments, only_with.removeprefix("--")):
            raise InputError(f"{flag} is for {only_with}; omit it.")
    if arguments.visualize_all and arguments.visualize == NO_PICTURES:
        raise InputError("--visualize_all contradicts --visualize none; omit one of them.")
    check_threshold_flags(arguments)
    refuse_to_write_there(arguments.calibrate, arguments.save_path)
    check_inputs(arguments.data_path, arguments.image or () if not arguments.go_on else (), arguments.checkpoint_path)
    # After the flags, since these bring torch and all that the run needs: a mistake is answered at once.
    from pipeline.distributed import process_group

    set_seed(arguments.seed)
    with process_group(arguments.device) as ranks:
        command = shlex.join(["python", "test.py", *argv])
        if arguments.image:
            from pipeline.image_run import run_on_images

            return run_on_images(arguments, ranks, command)
        from pipeline.dataset_run import run_on_dataset

        return run_on_dataset(arguments, ranks, command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", help="a dataset: folder with meta.json, or the file itself")
    parser.add_argument(
        "--image",
        "--image_path",
        nargs="+",
        metavar="PATH",
        help="image files, folders of images, quoted globs, or - for a list of these on standard input",
    )
    parser.add_argument(
        "--no_recursive",
        action="store_true",
        help="do not search the subfolders of folders after --image; default: search",
    )
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on after a run that was stopped: images that it has scored are left out, those with an error are "
        "tried again; default: start anew",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at an image of a dataset that cannot be scored; default: go on"
    )
    parser.add_argument("--dataset", help="label of the dataset: selects the paper's row and the prompts")
    parser.add_argument("--save_path", default="./results", help="folder for all output (default: %(default)s)")
    parser.add_argument("--metrics", choices=LEVELS, default="image-pixel-level", help="default: %(default)s")
    parser.add_argument("--batch_size", type=positive, default=8, help="default: %(default)s")
    parser.add_argument("--save_maps", action="store_true", help="also write each smoothed map as .npy, (S, S) float32")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--visualize",
        choices=(NO_PICTURES, "overlay", "panel"),
        help="overlay: heat map and outline on the image; panel: image, heat map, outline and ground truth beside one "
        "another (default: overlay for --image, panel for --data_path)",
    )
    pictures.add_argument(
        "--visualize_all",
        action="store_true",
        help="draw every image of a dataset; left out: per class the three worst misses, best hits and worst false "
        "alarms, or what comes nearest to them",
    )
    pictures.add_argument(
        "--picture_format",
        choices=("auto", "png", "jpg"),
        default="auto",
        help="auto: PNG up to a megapixel, JPEG beyond (default: %(default)s)",
    )
    pictures.add_argument(
        "--max_picture_side",
        type=positive,
        default=2048,
        help="larger images are drawn with a longer side of so many pixels (default: %(default)s)",
    )
    parser.add_argument("--no_report", action="store_true", help="do not write report.html")
    add_scoring_flags(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))

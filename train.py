"""Learn the two prompts on an auxiliary dataset.

python train.py --train_data_path /data/visa --dataset visa --save_path checkpoints/trained_on_visa
torchrun --nproc_per_node=4 train.py ...    # four processes share the encoding
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from AnomalyCLIP_lib.errors import InputError
from pipeline.flags import CACHE_FOLDER, add_model_flags, check_inputs
from utils import positive, run


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    if arguments.resume and arguments.overwrite:
        raise InputError("--resume contradicts --overwrite; omit one of them.")
    if arguments.feature_cache == "off" and arguments.feature_cache_required:
        raise InputError("--feature_cache_required contradicts --feature_cache off; omit one of them.")
    check_inputs(arguments.train_data_path, checkpoint=arguments.init_from)
    # After the flags, since these bring torch and all that the run needs: a mistake is answered at once.
    from pipeline.distributed import process_group
    from pipeline.training.train_run import train

    with process_group(arguments.device) as ranks:
        train(arguments, ranks, shlex.join(["python", "train.py", *argv]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_path", required=True, help="folder with meta.json, or the file itself")
    parser.add_argument("--save_path", help="folder of the checkpoints (default: checkpoints/trained_on_<dataset>)")
    parser.add_argument(
        "--dataset", help="label of the training dataset (default: the folder's name, where it is that of a known one)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a stopped training, with the same flags")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the checkpoints of an earlier training in --save_path"
    )
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
    cache.add_argument("--feature_cache_dtype", choices=("fp32", "fp16"), default="fp32", help="default: %(default)s")
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

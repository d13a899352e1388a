"""From the flags that test.py and the web page share to a model and its thresholds."""

import argparse

from AnomalyCLIP_lib.distributed import ALONE, Ranks
from AnomalyCLIP_lib.loading import load
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.thresholds import Choice, Thresholds
from command_line import typed_settings
from generic_dataset_json.names import plain_name
from runs.calibration import run_thresholds


def load_model(
    arguments: argparse.Namespace, backbone: str | None, device: str, label: str | None = None
) -> AnomalyCLIP:
    """The model of the flags.

    Args:
        backbone: as `load` takes it.
        label: of the dataset that is tested; decides which prompts in checkpoints/ are used.

    Raises:
        InputError: see `load`.
    """
    return load(
        backbone,
        arguments.pretrained,
        arguments.checkpoint_path,
        device=device,
        cache_dir=arguments.cache_dir,
        tested_dataset=plain_name(label),
        sigma=arguments.sigma,
        compile=arguments.compile,
        **typed_settings(arguments),
    )


def find_thresholds(
    model: AnomalyCLIP, arguments: argparse.Namespace, batch_size: int, ranks: Ranks = ALONE
) -> tuple[Thresholds, list[str]]:
    """The thresholds of the flags, and sentences for the user; see `calibration.run_thresholds`."""
    return run_thresholds(model, *threshold_choice(arguments), batch_size, ranks)


def threshold_choice(arguments: argparse.Namespace) -> tuple[Choice, Choice, str | None, float | None]:
    """The flags of `command_line.add_threshold_flags`, as `calibration.check_flags` takes them."""
    return arguments.threshold, arguments.pixel_threshold, arguments.calibrate, arguments.false_alarm_rate

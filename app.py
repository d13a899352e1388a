"""A web page that finds anomalies in the pictures given to it.

python app.py                                   # http://127.0.0.1:7860, on this machine only
python app.py --checkpoint_path checkpoints/trained_on_mvtec/epoch_15.pth --port 8000
"""

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.errors import InputError
from pipeline.flags import add_scoring_flags, check_inputs, check_threshold_flags, find_thresholds, load_model
from utils import run, set_seed

IMAGES = Path(__file__).resolve().parent / "docs" / "images"
BATCH_SIZE = 8  # of calibration
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
SAMPLES = ("washer_damaged", "woven_damaged", "marble_damaged", "capsule_intact")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if importlib.util.find_spec("gradio") is None:
        raise InputError("The web page needs Gradio; install it by: pip install -e '.[app]'")
    check_threshold_flags(arguments)
    check_inputs(None, checkpoint=arguments.checkpoint_path)
    with tempfile.TemporaryDirectory(prefix="anomalyclip_page_") as uploads, serving(arguments, uploads) as url:
        print(f"the web page is at {url} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if arguments.host not in LOCAL_HOSTS:
            print("everyone who reaches this machine can use it: there is no password", file=sys.stderr, flush=True)
        _wait_for_the_end()
    print("the web page has ended", file=sys.stderr)
    return 0


@contextmanager
def serving(arguments: argparse.Namespace, uploads: str) -> Iterator[str]:
    """Serve the page while the block runs; gives its address.

    Args:
        uploads: folder that uploaded files are kept in.

    Raises:
        InputError: the flags do not fit, or no port can be used; nothing has been served then.
    """
    from AnomalyCLIP_lib.loading import backbone_at_hand
    from pipeline.distributed import ALONE

    set_seed(arguments.seed)
    backbone, reason = backbone_at_hand(
        arguments.backbone, arguments.pretrained, arguments.checkpoint_path, arguments.cache_dir
    )
    model = load_model(arguments, backbone, arguments.device)
    print(f"model: {model.describe()} ({reason})", *model.provenance.notices, sep="\n", file=sys.stderr)
    thresholds, notices = find_thresholds(model, arguments, BATCH_SIZE, ALONE)
    print(*notices, thresholds.describe(), sep="\n", file=sys.stderr, flush=True)
    # Gradio reads these when it is imported: nothing is sent to its makers, nothing stays in the common folder.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
    from pipeline.web.interface import build, launch_options
    from pipeline.web.scoring import Scorer

    samples = [path for name in SAMPLES if (path := IMAGES / f"{name}.png").is_file()]
    page = build(Scorer(model), thresholds, reason, samples)
    host, port = arguments.host, arguments.port
    launched: dict[str, Any] = launch_options(samples)
    try:
        _, url, _ = page.launch(server_name=host, server_port=port, prevent_thread_lock=True, **launched)
    except OSError as error:
        asked = f"--port {port}" if port else "Every port"
        raise InputError(f"{asked} at --host {host} is taken or forbidden; choose another port or host.") from error
    try:
        yield url
    finally:
        page.close(verbose=False)


def _wait_for_the_end() -> None:
    """Until Ctrl-C, or a polite request of the system (SIGTERM)."""
    asked = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: asked.set()) for number in signals]
    while not asked.wait(1):
        pass
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: a whole number from 1 to 65535")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s: this machine)")
    parser.add_argument("--port", type=_port, help="default: the first free one from 7860 on")
    add_scoring_flags(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))

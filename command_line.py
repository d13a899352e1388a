"""What all commands of this repository share: how they end when the input is bad."""

import os
import sys
from collections.abc import Callable, Sequence

from AnomalyCLIP_lib.errors import InputError


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Call `main(None)` and turn bad input into one sentence on standard error and exit code 2.

    `main` takes the argument list (None: sys.argv) and returns the exit code. Code in other places
    calls `main(argv)` itself and sees `InputError`.
    """
    try:
        return main(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1

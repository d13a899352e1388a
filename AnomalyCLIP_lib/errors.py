"""The one error type for input that a user can fix."""


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a flag, a checkpoint.

    The message is one sentence that names the file or flag, says what is wrong with it and what to do.
    The scripts print it without a traceback and exit with code 2.
    """

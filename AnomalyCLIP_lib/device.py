"""Where the model runs, and in which number format."""

from contextlib import AbstractContextManager

import torch

from AnomalyCLIP_lib.errors import InputError

AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU; other names are torch's.

    Raises:
        InputError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # a device that only pretends to compute fails here
    # in turn: an unknown name, torch built without CUDA, a device that holds tensors but computes nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        present = ["auto", "cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise InputError(f"--device {name} is not available on this machine; choose {' or '.join(present)}.") from error
    return device


def prepare_precision(precision: str, device: torch.device) -> None:
    """Set torch's process-wide TF32 switches: fp32 means fp32 unless "tf32" was asked for.

    Raises:
        InputError: the device cannot compute in this precision.
    """
    if precision == "tf32" and device.type != "cuda":
        raise InputError(f"--precision tf32 exists on CUDA devices only, not on {device}; use fp32 or bf16.")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("--precision bf16 is not supported by this GPU; use fp16 or fp32.")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which the image encoder runs; without effect for fp32 and tf32."""
    dtype = AUTOCAST_TYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

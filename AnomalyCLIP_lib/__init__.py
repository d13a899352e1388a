"""AnomalyCLIP: zero-shot anomaly detection with a frozen CLIP and learned, object-agnostic prompts.

    import AnomalyCLIP_lib
    model = AnomalyCLIP_lib.load()
    print(model.predict("part.png").anomaly_score)

Names are imported on first use, so that tools which only need the error type or the file helpers do not
wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from AnomalyCLIP_lib.detector import Detector, Prediction
    from AnomalyCLIP_lib.errors import InputError
    from AnomalyCLIP_lib.loading import load
    from AnomalyCLIP_lib.model import AnomalyCLIP

__all__ = ["AnomalyCLIP", "Detector", "InputError", "Prediction", "load"]

_HOME = {
    "AnomalyCLIP": "model",
    "Detector": "detector",
    "InputError": "errors",
    "Prediction": "detector",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"AnomalyCLIP_lib.{_HOME[name]}"), name)
    raise AttributeError(f"module 'AnomalyCLIP_lib' has no attribute '{name}'")

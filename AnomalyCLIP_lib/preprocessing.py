"""The way from a picture to the tensor that CLIP reads."""

from collections.abc import Callable
from typing import cast

from PIL import Image
from torch import Tensor
from torchvision import transforms

from AnomalyCLIP_lib.images import to_rgb

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def build_preprocess(image_size: int) -> Callable[[Image.Image], Tensor]:
    """PIL image of any mode -> (3, S, S) float32 tensor.

    Resized to S x S with PIL's bicubic filter (the aspect ratio is not kept and nothing is cropped, so that no
    border of a product is lost), scaled to [0, 1], normalised with OpenAI's mean and standard deviation.
    """
    steps = transforms.Compose(
        [
            to_rgb,
            transforms.Resize((image_size, image_size), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(OPENAI_MEAN, OPENAI_STANDARD_DEVIATION),
        ]
    )
    return cast(Callable[[Image.Image], Tensor], steps)

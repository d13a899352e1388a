"""The way from an image to the tensor that CLIP reads."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, pil_to_tensor

from AnomalyCLIP_lib.images import to_rgb

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Preprocess:
    """PIL image of any mode -> (3, S, S) float32 tensor.

    Resized to S x S with PIL's bicubic filter (the aspect ratio is not kept and nothing is cropped, so that no
    border of a product is lost), scaled to [0, 1], normalised with OpenAI's mean and standard deviation.

    Args:
        image_size: S, pixels.
    """

    def __init__(self, image_size: int):
        self.image_size = image_size

    def __call__(self, image: Image.Image) -> Tensor:
        return self.to_tensor(self.resize(image))

    def resize(self, image: Image.Image) -> Image.Image:
        """RGB, S x S."""
        return to_rgb(image).resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)

    def to_tensor(self, resized: Image.Image) -> Tensor:
        """What `resize` gave, (3, S, S) float32, normalised."""
        scaled = pil_to_tensor(resized).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return normalize(scaled, list(OPENAI_MEAN), list(OPENAI_STANDARD_DEVIATION), inplace=True)

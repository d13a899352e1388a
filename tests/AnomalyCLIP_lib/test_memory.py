"""Memory that does not suffice, and readers that die: smaller batches, or a sentence."""

from contextlib import contextmanager

import pytest
import torch
from runs import train_tiny

import AnomalyCLIP_lib
from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.visual_encoder import VisualEncoder


@contextmanager
def room_for(images):
    """An image encoder that runs out of memory above so many images; gives the batches that it was asked for."""
    original = VisualEncoder.forward
    asked: list[int] = []

    def forward(self, batch, *arguments, **more):
        asked.append(len(batch))
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return original(self, batch, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VisualEncoder, "forward", forward)
        yield asked


def learned(folder):
    return torch.load(folder / "epoch_1.pth", weights_only=True)["prompt_learner"]


def test_the_encoders_batch_is_halved_and_the_optimisers_is_not(tiny_files, tiny_dataset, tmp_path, caplog):
    flags = ("--feature_cache", "off", "--batch_size", "4", "--epoch", "1")
    train_tiny(tiny_files, tiny_dataset, tmp_path / "large", *flags)
    with room_for(2) as asked:
        train_tiny(tiny_files, tiny_dataset, tmp_path / "small", *flags)
    assert asked == [4] + 2 * [2] + 2 * 6 * [
        2
    ]  # found out once, by the four images of maps.png; an epoch, the thresholds
    notices = [record.getMessage() for record in caplog.records if "at a time" in record.getMessage()]
    assert len(notices) == 1 and "4 images at once: going on with 2 at a time" in notices[0]
    large, small = learned(tmp_path / "large"), learned(tmp_path / "small")
    assert all(torch.allclose(large[name].float(), small[name].float(), atol=1e-4) for name in large)


def test_no_room_for_one_image(tiny_files):
    model = AnomalyCLIP_lib.load(
        str(tiny_files / "tiny.json"), str(tiny_files / "tiny.safetensors"), "handwritten", device="cpu"
    )
    with room_for(0) as asked, pytest.raises(InputError, match=r"single image .*--image_size"):
        model.score(torch.zeros(5, 3, 42, 42))
    assert asked == [5, 2, 1]


def test_other_errors_pass_through(tiny_files, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes cannot be multiplied")

    model = AnomalyCLIP_lib.load(
        str(tiny_files / "tiny.json"), str(tiny_files / "tiny.safetensors"), "handwritten", device="cpu"
    )
    monkeypatch.setattr(VisualEncoder, "forward", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        model.score(torch.zeros(2, 3, 42, 42))


def test_no_room_for_a_training_step(tiny_files, tiny_dataset, tmp_path, monkeypatch):
    def too_much(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("AnomalyCLIP_lib.model.glocal_loss", too_much)
    with pytest.raises(InputError, match=r"training step on 5 images; lower --batch_size"):
        train_tiny(tiny_files, tiny_dataset, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.pth"))

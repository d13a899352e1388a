"""Training to look at: loss curves, and how the maps of a few images change from epoch to epoch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from AnomalyCLIP_lib.decisions import map_values
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.scoring import anomaly_maps
from dataset import Entry, read_mask
from pipeline.output_folder import OutputFolder
from pipeline.reporting.margins import LEAST_TEXT, arranged, with_title
from pipeline.reporting.pictures import mask_picture, overlay, save_picture
from pipeline.reporting.predictions import csv_lines

LOSSES, LOSS_CURVES, MAPS = "losses.csv", "losses.png", "maps.png"
TENSORBOARD_FOLDER = "tensorboard"
SHOWN = (0, 1, 0, 1)
"""The labels of the images whose maps are drawn."""
TILE = 160
MOST_COLUMNS = 16
"""Maps of each image in maps.png, that before the training included; of more epochs, evenly spread ones are shown."""
GAP = 4
BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart with every kind of colour vision


class TrainingProgress:
    """Pictures and figures of a training, renewed after every epoch; it changes nothing about what is learned.

    Writes into the run's folder losses.csv (a row per epoch), losses.png (their curves), maps.png (four images, their
    ground truth, and their maps before the training and after each epoch, on the fixed scale 0 to 1), and, where
    tensorboard is installed, the same as event files below tensorboard/.

    Args:
        model: whose prompts are being learned. Four images are encoded by it at once, and never again.
        entries: the training images, of which the four are chosen, see `chosen_images`.
        mask_threshold: grey value above which a mask is anomalous, or "auto".
        folder: of the run; it exists.
        notify: receives a sentence for the user where TensorBoard's files cannot be written, which ends no training.

    Raises:
        InputError: one of the four images cannot be read, or a file cannot be written.
    """

    def __init__(
        self,
        model: AnomalyCLIP,
        entries: Sequence[Entry],
        mask_threshold: Literal["auto"] | int,
        folder: OutputFolder,
        notify: Callable[[str], object],
    ):
        self.model, self.folder, self.notify = model, folder, notify
        self.losses: list[tuple[int, float, float]] = []
        self.tensorboard = _TensorBoard(folder.path / TENSORBOARD_FOLDER, notify)
        shown = chosen_images(entries)
        pictures = [read_image(entry.image_path) for entry in shown]
        self.features = model.encode_image(torch.stack([model.preprocess(picture) for picture in pictures]))[1]
        self.tiles = [_fitted(picture) for picture in pictures]
        size = model.settings.image_size
        masks = [mask_picture(read_mask(entry, size, mask_threshold)) for entry in shown]
        self.truths = [
            cv2.resize(mask, tile.size, interpolation=cv2.INTER_NEAREST)
            for mask, tile in zip(masks, self.tiles, strict=True)
        ]
        self.maps = {0: self._draw_maps()}  # by epoch
        self.stride = 1

    def epoch_done(self, epoch: int, local_loss: float, image_loss: float) -> None:
        """Renew everything.

        Args:
            epoch: number of the completed epoch, from 1.
            local_loss, image_loss: means over its steps, as they are logged.
        """
        self.losses.append((epoch, local_loss, image_loss))
        self._add_maps(epoch)
        rows = [[str(number), repr(local), repr(image)] for number, local, image in self.losses]
        try:
            self.folder.write_text(LOSSES, csv_lines([("epoch", "local_loss", "image_loss"), *rows]))
            save_picture(loss_curves(self.losses), self.folder.claim(LOSS_CURVES))
            save_picture(self._table(list(self.maps)), self.folder.claim(MAPS))
        except (InputError, OSError) as error:  # pictures are no reason to lose a training
            self.notify(f"{error} Training goes on.")
        self.tensorboard.write(epoch, local_loss, image_loss, self._table([epoch]))

    def state(self) -> dict[str, Any]:
        """What a training that is resumed needs to draw the same pictures, as plain types and tensors."""
        maps = {epoch: [torch.from_numpy(one) for one in maps] for epoch, maps in self.maps.items()}
        return {"losses": self.losses, "maps": maps, "stride": self.stride}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.losses, self.stride = state["losses"], state["stride"]
        self.maps = {epoch: [one.numpy() for one in maps] for epoch, maps in state["maps"].items()}

    def _draw_maps(self) -> list[np.ndarray]:
        """The heat map of every shown image with the prompts as they are now."""
        with torch.no_grad():
            layers = self.model.layer_probabilities(self.features, self.model.text_features())
            maps = np.nan_to_num(anomaly_maps(layers, self.model.settings.sigma).numpy())
        return [
            overlay(tile, map_values(anomaly_map, len(layers), tile.size))
            for tile, anomaly_map in zip(self.tiles, maps, strict=True)
        ]

    def _add_maps(self, epoch: int) -> None:
        """Keep the first, the latest and evenly spread ones between them, `MOST_COLUMNS` at most."""
        before = {number: maps for number, maps in self.maps.items() if number % self.stride == 0}
        while len(before) >= MOST_COLUMNS:
            self.stride *= 2
            before = {number: maps for number, maps in before.items() if number % self.stride == 0}
        self.maps = {**before, epoch: self._draw_maps()}

    def _table(self, epochs: Sequence[int]) -> np.ndarray:
        """A row for each image: the image, its ground truth, and its maps after these epochs."""
        titles = ["image", "ground truth", *("start" if epoch == 0 else f"epoch {epoch}" for epoch in epochs)]
        images = [np.asarray(tile) for tile in self.tiles]
        columns = [images, self.truths, *(self.maps[epoch] for epoch in epochs)]
        titled = [
            with_title(arranged(column, False, GAP), title, LEAST_TEXT)
            for title, column in zip(titles, columns, strict=True)
        ]
        return arranged(titled, True, GAP)


def chosen_images(entries: Sequence[Entry]) -> list[Entry]:
    """Two normal and two anomalous images, as far as there are, of different classes where possible.

    The same ones for the same entries; all different.
    """
    chosen: list[Entry] = []
    for label in SHOWN:
        candidates = [entry for entry in entries if entry.anomaly == label and entry not in chosen]
        seen = {entry.class_name for entry in chosen}
        alike = {entry.class_name for entry in chosen if entry.anomaly == label}
        candidates.sort(key=lambda entry: (entry.class_name in seen) + (entry.class_name in alike))  # a stable sort
        chosen += candidates[:1]
    return chosen


def loss_curves(losses: Sequence[tuple[int, float, float]]) -> np.ndarray:
    """The two losses over the epochs, each with an axis of its own: (height, width, 3) uint8 RGB.

    Args:
        losses: epoch, local loss, image loss.
    """
    epochs = [epoch for epoch, _, _ in losses]
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    curves = (
        ("local loss (maps)", [local for _, local, _ in losses], BLUE),
        ("image loss (scores)", [image for _, _, image in losses], ORANGE),
    )
    for axes, (name, values, colour) in zip(figure.subplots(1, 2), curves, strict=True):
        axes.plot(epochs, values, color=colour, marker="o", markersize=4)
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0, top=max(values) * 1.1 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class _TensorBoard:
    """Event files for TensorBoard, where it is installed; whatever goes wrong with it is reported once."""

    def __init__(self, folder: Path, notify: Callable[[str], object]):
        self.folder, self.notify = folder, notify
        self.writer: Any = None
        self.works = True

    def write(self, epoch: int, local_loss: float, image_loss: float, maps: np.ndarray) -> None:
        if not self.works:
            return
        try:
            if self.writer is None:  # not before the first epoch: it starts a thread, and readers of images may fork
                try:
                    from torch.utils.tensorboard.writer import SummaryWriter
                except ImportError:  # not installed, and it need not be
                    self.works = False
                    return
                # Events of an earlier run in the same folder are not shown any more.
                self.writer = SummaryWriter(str(self.folder), purge_step=0)
            self.writer.add_scalar("loss/local", local_loss, epoch)
            self.writer.add_scalar("loss/image", image_loss, epoch)
            self.writer.add_image("maps", maps, epoch, dataformats="HWC")
            self.writer.flush()
        except Exception as error:  # a viewer's files are no reason to lose a training
            self.works = False
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.notify(f"Files for TensorBoard are not written ({reason}); training goes on.")


def _fitted(picture: Image.Image) -> Image.Image:
    """As large as fits into a square of `TILE` pixels, and no narrower than one pixel."""
    share = TILE / max(picture.size)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.LANCZOS if share < 1 else Image.Resampling.BICUBIC)

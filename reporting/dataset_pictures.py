"""The pictures that a run on a dataset leaves: heat maps of its images, and their maps as arrays."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from AnomalyCLIP_lib.distributed import Ranks
from AnomalyCLIP_lib.images import read_image
from dataset import Entry
from evaluation import ScoredImage
from reporting.image_files import output_names, refuse_to_overwrite, save_heat_map, save_map


class DatasetPictures:
    """An `evaluation.Observer`: overlays of the first anomalous and the first normal images of each class.

    Args:
        folder: where they go, mirroring the dataset's folders.
        entries: all images of the run, in their order.
        pictures_per_class: how many of each label.
        save_maps: also write every smoothed map as (S, S) float32 .npy.

    Raises:
        InputError: one of them would overwrite an image of the dataset.
    """

    needs_maps = True

    def __init__(self, folder: Path, entries: Sequence[Entry], pictures_per_class: int, save_maps: bool):
        self.folder = folder
        self.save_maps = save_maps
        names = [PurePath(entry.relative_path) for entry in entries]
        self.outputs = dict(zip((entry.relative_path for entry in entries), output_names(names), strict=True))
        self.drawn: set[str] = set()  # chosen beforehand, so that several processes agree
        counts: Counter[tuple[str, int]] = Counter()
        for entry in entries:
            key = (entry.class_name, entry.anomaly)
            if counts[key] < pictures_per_class:
                counts[key] += 1
                self.drawn.add(entry.relative_path)
        files = (path for entry in entries for path in (entry.image_path, entry.mask_path) if path is not None)
        refuse_to_overwrite(files, folder, self.outputs.values())

    def see(self, scored: ScoredImage) -> None:
        """Write what there is to write for this image."""
        if scored.anomaly_map is None or scored.values is None:
            return
        output = self.outputs[scored.entry.relative_path]
        if scored.entry.relative_path in self.drawn:
            save_heat_map(read_image(scored.entry.image_path), scored.values, self.folder, output)
        if self.save_maps:
            save_map(scored.anomaly_map, self.folder, output)

    def end_class(self, name: str, ranks: Ranks) -> None:
        """Nothing is kept."""

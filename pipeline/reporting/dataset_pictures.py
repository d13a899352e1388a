"""The pictures that a run on a dataset leaves: those of its most telling images, and maps as arrays."""

import csv
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

import cv2
import numpy as np

from AnomalyCLIP_lib.decisions import ANOMALOUS, Decision, map_values
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write, make_folder
from AnomalyCLIP_lib.images import decode_mask, read_bytes, read_image
from dataset import Entry
from pipeline.distributed import Ranks
from pipeline.reporting.image_files import output_names, picture_path, refuse_to_overwrite, save_image_picture, save_map
from pipeline.reporting.observing import ScoredImage
from pipeline.reporting.outcomes import outcome
from pipeline.reporting.pictures import KINDS
from pipeline.reporting.predictions import csv_lines

INDEX = "pictures.csv"
INDEX_COLUMNS = ("picture", "image_path", "cls_name", "outcome", "chosen_as")

DRAWING_THREADS = 4

WORDS = {
    "false-positive": "false alarm",
    "false-negative": "miss",
    "true-positive": "hit",
    "true-negative": "rightly normal",
}
"""For `outcomes.outcome`."""
ALL = "every image"
RANKINGS = {  # name: label, whether high scores come first
    "lowest scores of anomalous images": (1, False),
    "highest scores of anomalous images": (1, True),
    "highest scores of normal images": (0, True),
}
"""What is telling about a class: its worst misses, its best hits and its worst false alarms, or what comes nearest."""


@dataclass(frozen=True)
class Drawn:
    """A row of pictures.csv: a picture that a run drew, and why."""

    output: PurePath
    entry: Entry
    outcome: str
    chosen_as: str


@dataclass(frozen=True)
class _Candidate:
    """An image in the choice, of whichever process; what it takes to draw it stays in its own."""

    score: float
    position: int
    decision: str
    entry: Entry


class DatasetPictures:
    """An `observing.Observer`: draws the most telling images of each class, or all.

    Those are, per class, the anomalous images with the lowest scores, those with the highest, and the normal ones with
    the highest. So misses and false alarms come first, and where there are none, the images that come nearest to one;
    the margin of each picture says which it is. Several processes choose together, and each draws its own images.
    Of each class, no more maps are kept at a time than may be drawn.

    Args:
        folder: where they go, mirroring the dataset's folders.
        entries: all images of the run, in their order.
        visualize: one of `pictures.KINDS`, or "none".
        draw_all: every image is drawn, as soon as it is scored.
        save_maps: also write every smoothed map as (S, S) float32 .npy.
        layers: of the model, see `decisions.map_values`.
        mask_threshold: grey value above which a mask is anomalous, or "auto".
        per_ranking: how many images of each kind.

    Raises:
        InputError: one of them would overwrite an image of the dataset.
    """

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Entry],
        visualize: str,
        draw_all: bool,
        save_maps: bool,
        layers: int,
        mask_threshold: Literal["auto"] | int,
        per_ranking: int = 3,
    ):
        self.folder, self.draw = folder, KINDS.get(visualize)
        self.draw_all, self.save_maps = draw_all, save_maps
        self.layers, self.per_ranking = layers, per_ranking
        self.mask_threshold: Literal["auto"] | int = mask_threshold
        self.needs_maps = self.draw is not None or save_maps
        self.drawn: list[Drawn] = []
        names = [PurePath(entry.relative_path) for entry in entries]
        self.outputs = dict(zip((entry.relative_path for entry in entries), output_names(names), strict=True))
        self.own_files = {
            path.resolve() for entry in entries for path in (entry.image_path, entry.mask_path) if path is not None
        }
        if self.needs_maps:
            refuse_to_overwrite(self.own_files, folder, self.outputs.values())
        self._start_class()

    def see(self, scored: ScoredImage) -> None:
        """Write what there is to write for this image at once; keep it if it may be a telling one."""
        if scored.anomaly_map is None or scored.values is None:
            return
        entry, finding = scored.entry, scored.finding
        if self.save_maps:
            save_map(scored.anomaly_map, self.folder, self.outputs[entry.relative_path])
        if self.draw is None:
            return
        candidate = _Candidate(finding.anomaly_score, scored.position, finding.decision, entry)
        if self.draw_all:
            self.candidates.append(candidate)
            self._draw(entry, finding, scored.values, "")
            return
        self.counts[entry.anomaly] += 1
        self.candidates = list(self._ranked([*self.candidates, candidate]).values())
        self.kept[scored.position] = finding, scored.size, scored.anomaly_map.copy()  # not its whole batch
        self.kept = {candidate.position: self.kept[candidate.position] for candidate in self.candidates}

    def end_class(self, name: str, ranks: Ranks) -> None:
        """Choose among the images of all processes, and draw those of this one."""
        if self.draw is None:
            return
        parts = ranks.gather((self.candidates, self.counts))
        together = [candidate for candidates, _ in parts for candidate in candidates]
        if self.draw_all:
            together.sort(key=lambda candidate: candidate.position)
            self._note_drawn((candidate, ALL) for candidate in together)
            self._start_class()
            return
        counts = [sum(part[label] for _, part in parts) for label in (0, 1)]
        chosen = self._chosen(together)
        self._note_drawn((candidate, ranking) for candidate, ranking, _ in chosen)
        if ranks.is_main:
            self.write_index()  # before anything is drawn, so that a run that is killed leaves nothing unlisted
        reasons = {
            candidate.position: f"{ranking} of {name}: number {place} of {counts[candidate.entry.anomaly]}"
            for candidate, ranking, place in chosen
        }
        entries = {candidate.position: candidate.entry for candidate in self.candidates}
        own = [(position, reason) for position, reason in ranks.broadcast(reasons).items() if position in self.kept]

        def draw(position: int, reason: str) -> None:
            finding, size, anomaly_map = self.kept[position]
            self._draw(entries[position], finding, map_values(anomaly_map, self.layers, size), reason)

        with ThreadPoolExecutor(DRAWING_THREADS) as pool:  # compressing a large picture takes a second
            for _ in pool.map(draw, *zip(*own, strict=True)) if own else ():
                pass  # an error in a thread is raised here
        self._start_class()

    def write_index(self) -> None:
        """Write pictures.csv, the list of what this run drew, and delete what an earlier list names beyond that.

        To be called on the main process after the run; classes call it by themselves. Whoever looks at pictures in the
        folder sees those of one run.
        """
        path = self.folder / INDEX
        new = {picture_path(self.folder, drawn.output).resolve() for drawn in self.drawn}
        for old in _listed(path, self.folder):
            if old not in new and old not in self.own_files:
                old.unlink(missing_ok=True)
        rows = [
            (
                picture_path(Path(), drawn.output).as_posix(),
                drawn.entry.relative_path,
                drawn.entry.class_name,
                drawn.outcome,
                drawn.chosen_as,
            )
            for drawn in self.drawn
        ]
        if not rows:
            path.unlink(missing_ok=True)
            return
        make_folder(self.folder, "--save_path")
        with atomic_write(path) as temporary:
            temporary.write_text(csv_lines([INDEX_COLUMNS, *rows]), encoding="utf-8", newline="")

    def _start_class(self) -> None:
        self.candidates: list[_Candidate] = []
        self.counts = [0, 0]  # normal and anomalous images of this class
        self.kept: dict[int, tuple[Decision, tuple[int, int], np.ndarray]] = {}

    def _ranked(self, candidates: Iterable[_Candidate]) -> dict[int, _Candidate]:
        """Those among the first of any ranking, by position."""
        found = {}
        for ranking in RANKINGS:
            found |= {candidate.position: candidate for candidate in self._first(candidates, ranking)}
        return found

    def _first(self, candidates: Iterable[_Candidate], ranking: str) -> list[_Candidate]:
        label, descending = RANKINGS[ranking]
        part = [candidate for candidate in candidates if candidate.entry.anomaly == label]
        part.sort(key=lambda candidate: (-candidate.score if descending else candidate.score, candidate.position))
        return part[: self.per_ranking]

    def _chosen(self, candidates: list[_Candidate]) -> list[tuple[_Candidate, str, int]]:
        """What is drawn, each image once, with the ranking that it stands for and its place there, from 1."""
        by_position: dict[int, tuple[_Candidate, str, int]] = {}
        for ranking in RANKINGS:
            for place, candidate in enumerate(self._first(candidates, ranking), 1):
                # In a class of few anomalous images, one may be among the lowest and the highest: what it is decides.
                is_hit = candidate.decision == ANOMALOUS
                if candidate.position not in by_position or (RANKINGS[ranking][1] and is_hit):
                    by_position[candidate.position] = candidate, ranking, place
        return list(by_position.values())

    def _note_drawn(self, chosen: Iterable[tuple[_Candidate, str]]) -> None:
        for candidate, reason in chosen:
            entry = candidate.entry
            worth = WORDS[outcome(entry.anomaly, candidate.decision)]
            self.drawn.append(Drawn(self.outputs[entry.relative_path], entry, worth, reason))

    def _draw(self, entry: Entry, finding: Decision, values: np.ndarray, reason: str) -> None:
        assert self.draw is not None
        label = "anomalous" if entry.anomaly else "normal"
        worth = WORDS[outcome(entry.anomaly, finding.decision)]
        note = f"{worth}: labelled {label}{'; ' if reason else ''}{reason}"
        truth = self._truth(entry, (values.shape[1], values.shape[0]))
        picture = self.draw(read_image(entry.image_path), finding, values, truth, note)
        save_image_picture(picture, self.folder, self.outputs[entry.relative_path])

    def _truth(self, entry: Entry, size: tuple[int, int]) -> np.ndarray | None:
        """The stored mask at the picture's own size (width, height); None where there is none that can be read.

        An unreadable one has ended the run before, unless it has no pixel metrics, and then it is not needed.
        """
        if not entry.anomaly or entry.mask_path is None:
            return None
        try:
            mask = decode_mask(read_bytes(entry.mask_path), entry.mask_path, self.mask_threshold)
        except InputError:
            return None
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)


def _listed(index: Path, folder: Path) -> set[Path]:
    """The pictures below `folder` that a pictures.csv lists; none where it is not one."""
    try:
        with index.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != INDEX_COLUMNS:
                return set()
            listed = {(folder / row["picture"]).resolve() for row in reader if row["picture"]}
    except (OSError, UnicodeDecodeError, csv.Error, ValueError):
        return set()
    root = folder.resolve()
    return {path for path in listed if path.suffix == ".png" and root in path.parents}

"""The pictures that a run on a dataset leaves: those of its most telling images, and maps as arrays."""

import csv
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

import cv2
import numpy as np

from AnomalyCLIP_lib.decisions import ANOMALOUS, Decision
from AnomalyCLIP_lib.detector import Prediction
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

    position: int
    decision: Decision


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
        draw_all: bool = False,
        save_maps: bool = False,
        mask_threshold: Literal["auto"] | int = "auto",
        per_ranking: int = 3,
    ):
        self.folder, self.entries, self.draw = folder, entries, KINDS.get(visualize)
        self.draw_all, self.save_maps, self.per_ranking = draw_all, save_maps, per_ranking
        self.mask_threshold: Literal["auto"] | int = mask_threshold
        self.needs_maps = self.draw is not None or save_maps
        self.drawn: list[Drawn] = []
        self.outputs = output_names([PurePath(entry.relative_path) for entry in entries])
        self.own_files = {
            path.resolve() for entry in entries for path in (entry.image_path, entry.mask_path) if path is not None
        }
        if self.needs_maps:
            refuse_to_overwrite(self.own_files, folder, self.outputs)
        # Of the classes that are under way:
        self._candidates: dict[str, list[_Candidate]] = defaultdict(list)
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # normal and anomalous images
        self._kept: dict[int, tuple[Decision, tuple[int, int], Prediction]] = {}
        self._lock = threading.Lock()

    def observe(self, scored: ScoredImage) -> None:
        """Write what there is to write for this image at once; keep it if it may be a telling one."""
        if scored.values is None:
            return
        if self.save_maps:
            save_map(scored.prediction.anomaly_map.numpy(), self.folder, self.outputs[scored.position])
        if self.draw is None:
            return
        candidate = _Candidate(scored.position, scored.decision)
        if self.draw_all:
            self._draw(candidate, scored.values, "")
        with self._lock:
            candidates = self._candidates[scored.class_name]
            candidates.append(candidate)
            self._counts[scored.class_name][self.entries[scored.position].anomaly] += 1
            if self.draw_all:
                return
            own_map = replace(scored.prediction, anomaly_map=scored.prediction.anomaly_map.clone())  # not its batch
            self._kept[scored.position] = scored.decision, scored.size, own_map
            ranked = self._ranked(candidates)
            for position in [one.position for one in candidates if one.position not in ranked]:
                del self._kept[position]
            candidates[:] = ranked.values()

    def end_class(self, name: str, ranks: Ranks) -> None:
        """Choose among the images of all processes, and draw those of this one."""
        if self.draw is None:
            return
        own, own_counts = self._candidates.pop(name, []), self._counts.pop(name, [0, 0])
        parts = ranks.gather((own, own_counts))
        together = sorted((one for part, _ in parts for one in part), key=lambda candidate: candidate.position)
        if self.draw_all:
            self._note_drawn((candidate, ALL) for candidate in together)
            return
        chosen = self._chosen(together)
        self._note_drawn((candidate, ranking) for candidate, ranking, _ in chosen)
        if ranks.is_main:
            self.write_index()  # before anything is drawn, so that a run that is killed leaves nothing unlisted
        counts = [sum(part[label] for _, part in parts) for label in (0, 1)]
        reasons = {
            candidate.position: f"{ranking} of {name}: number {place} of {counts[self._label(candidate)]}"
            for candidate, ranking, place in chosen
        }
        reasons = ranks.broadcast(reasons)

        def draw(candidate: _Candidate) -> None:
            _, size, prediction = self._kept.pop(candidate.position)
            if candidate.position in reasons:
                self._draw(candidate, prediction.values(size), reasons[candidate.position])

        with ThreadPoolExecutor(DRAWING_THREADS) as pool:  # compressing a large picture takes a second
            for _ in pool.map(draw, own):
                pass  # an error in a thread is raised here

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
        if not self.drawn:
            path.unlink(missing_ok=True)
            return
        rows = [
            (
                picture_path(Path(), one.output).as_posix(),
                one.entry.relative_path,
                one.entry.class_name,
                one.outcome,
                one.chosen_as,
            )
            for one in self.drawn
        ]
        make_folder(self.folder, "--save_path")
        with atomic_write(path) as temporary:
            temporary.write_text(csv_lines([INDEX_COLUMNS, *rows]), encoding="utf-8", newline="")

    def _label(self, candidate: _Candidate) -> int:
        return self.entries[candidate.position].anomaly

    def _ranked(self, candidates: Iterable[_Candidate]) -> dict[int, _Candidate]:
        """Those among the first of any ranking, by position."""
        return {one.position: one for ranking in RANKINGS for one in self._first(candidates, ranking)}

    def _first(self, candidates: Iterable[_Candidate], ranking: str) -> list[_Candidate]:
        label, descending = RANKINGS[ranking]
        sign = -1 if descending else 1
        part = [candidate for candidate in candidates if self._label(candidate) == label]
        part.sort(key=lambda candidate: (sign * candidate.decision.anomaly_score, candidate.position))
        return part[: self.per_ranking]

    def _chosen(self, candidates: list[_Candidate]) -> list[tuple[_Candidate, str, int]]:
        """What is drawn, each image once, with the ranking that it stands for and its place there, from 1."""
        by_position: dict[int, tuple[_Candidate, str, int]] = {}
        for ranking in RANKINGS:
            for place, candidate in enumerate(self._first(candidates, ranking), 1):
                # In a class of few anomalous images, one may be among the lowest and the highest: what it is decides.
                is_hit = candidate.decision.called == ANOMALOUS
                if candidate.position not in by_position or (RANKINGS[ranking][1] and is_hit):
                    by_position[candidate.position] = candidate, ranking, place
        return list(by_position.values())

    def _note_drawn(self, chosen: Iterable[tuple[_Candidate, str]]) -> None:
        for candidate, reason in chosen:
            entry, output = self.entries[candidate.position], self.outputs[candidate.position]
            self.drawn.append(Drawn(output, entry, WORDS[outcome(entry.anomaly, candidate.decision.called)], reason))

    def _draw(self, candidate: _Candidate, values: np.ndarray, reason: str) -> None:
        assert self.draw is not None
        entry, decision = self.entries[candidate.position], candidate.decision
        label = "anomalous" if entry.anomaly else "normal"
        note = f"{WORDS[outcome(entry.anomaly, decision.called)]}: labelled {label}{'; ' if reason else ''}{reason}"
        truth = self._truth(entry, (values.shape[1], values.shape[0]))
        picture = self.draw(read_image(entry.image_path), decision, values, truth, note)
        save_image_picture(picture, self.folder, self.outputs[candidate.position])

    def _truth(self, entry: Entry, size: tuple[int, int]) -> np.ndarray | None:
        """The stored mask at the image's own size (width, height); None where there is none that can be read.

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

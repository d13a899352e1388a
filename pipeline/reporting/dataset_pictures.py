"""The pictures that a run on a dataset leaves: those of its most telling images, and maps as arrays."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

import cv2
import numpy as np

from AnomalyCLIP_lib.decisions import ANOMALOUS, Decision
from AnomalyCLIP_lib.detector import Prediction
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import decode_mask, read_bytes, read_image
from dataset import Entry
from pipeline.distributed import Ranks
from pipeline.output_folder import OutputFolder
from pipeline.reporting.image_files import (
    map_name,
    output_names,
    possible_names,
    refuse_to_overwrite,
    save_drawn,
    save_map,
)
from pipeline.reporting.observing import ScoredImage
from pipeline.reporting.outcomes import outcome
from pipeline.reporting.pictures import KINDS, PictureOptions, reduced
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
class _Candidate:
    """An image in the choice, of whichever process; what it takes to draw it stays in its own.

    Attributes:
        picture: the file's name where it has been drawn.
    """

    position: int
    decision: Decision
    picture: str = ""


class DatasetPictures:
    """An `observing.Observer`: draws the most telling images of each class, or all.

    Those are, per class, the anomalous images with the lowest scores, those with the highest, and the normal ones with
    the highest. So misses and false alarms come first, and where there are none, the images that come nearest to one;
    the margin of each picture says which it is. Several processes choose together, and each draws its own images.
    Of each class, no more maps are kept at a time than may be drawn.

    Args:
        folder: where they go, mirroring the dataset's folders.
        entries: all images of the run, in their order.
        options: what is drawn and saved.
        mask_threshold: grey value above which a mask is anomalous, or "auto".
        predict: scores the image at a position anew, for one that an earlier run has scored; None: there is none.
        per_ranking: how many images of each kind.

    Raises:
        InputError: one of them would overwrite an image of the dataset, or a file that no run has written.
    """

    def __init__(
        self,
        folder: OutputFolder,
        entries: Sequence[Entry],
        options: PictureOptions,
        mask_threshold: Literal["auto"] | int = "auto",
        predict: Callable[[int], Prediction] | None = None,
        per_ranking: int = 3,
    ):
        self.folder, self.entries, self.options, self.predict = folder, entries, options, predict
        self.draw, self.per_ranking = KINDS.get(options.visualize), per_ranking
        self.mask_threshold: Literal["auto"] | int = mask_threshold
        self.needs_maps = self.draw is not None or options.save_maps
        self.outputs = output_names([PurePath(entry.relative_path) for entry in entries])
        self.inputs = [path for entry in entries for path in (entry.image_path, entry.mask_path) if path is not None]
        self.rows: list[tuple[int, tuple[str, ...]]] = []  # of pictures.csv, with their images' positions
        if self.needs_maps:
            refuse_to_overwrite(self.inputs, folder.path, self.outputs)
            folder.check([INDEX, *(name for output in self.outputs for name in possible_names(output))])
        # Of the classes that are under way, by class and position, and what it takes to draw them:
        self._candidates: dict[str, dict[int, _Candidate]] = defaultdict(dict)
        self._kept: dict[int, Prediction] = {}
        self._lock = threading.Lock()

    def observe(self, scored: ScoredImage) -> None:
        """Write what there is to write for this image at once; keep it if it may be a telling one."""
        if scored.values is None:
            return
        position, name = scored.position, scored.class_name
        if self.options.save_maps:
            save_map(scored.prediction.anomaly_map.numpy(), self.folder.claim(map_name(self.outputs[position])))
        if self.draw is None:
            return
        candidate = _Candidate(position, scored.decision)
        if self.options.every_image:
            candidate = replace(candidate, picture=self._draw(candidate, scored.prediction, ""))
            with self._lock:
                self._candidates[name][position] = candidate
            return
        with self._lock:
            own_map = replace(scored.prediction, anomaly_map=scored.prediction.anomaly_map.clone())  # not its batch
            self._kept[position] = own_map
            candidates = self._candidates[name] | {position: candidate}
            self._candidates[name] = self._ranked(candidates.values())
            for left_out in candidates.keys() - self._candidates[name].keys():
                self._kept.pop(left_out, None)

    def end_class(self, name: str, ranks: Ranks) -> None:
        """Choose among the images of all processes, and draw those of this one."""
        if self.draw is None:
            return
        self._gather(ranks)
        own = self._candidates.pop(name, {})
        if self.options.every_image:
            self._note_drawn((own[position], ALL) for position in sorted(own))
            return
        chosen = self._chosen([own[position] for position in sorted(own)])
        counts = [0, 0]
        for entry in self.entries:
            counts[entry.anomaly] += entry.class_name == name
        reasons = ranks.broadcast(
            {
                candidate.position: (
                    candidate,
                    f"{ranking} of {name}: number {place} of {counts[self._label(candidate)]}",
                )
                for candidate, ranking, place in chosen
            }
        )
        at_hand = set().union(*ranks.gather(reasons.keys() & self._kept.keys()))
        # What an earlier run has scored is scored again by the main process.
        left = reasons.keys() - at_hand if ranks.is_main else set()

        def draw(position: int) -> tuple[int, str]:
            candidate, reason = reasons[position]
            if position in left:
                assert self.predict is not None
                self._kept[position] = self.predict(position)
            return position, self._draw(candidate, self._kept[position], reason)

        with ThreadPoolExecutor(DRAWING_THREADS) as pool:
            drawn = dict(pool.map(draw, sorted((reasons.keys() & self._kept.keys()) | left)))
        names = {position: name for part in ranks.gather(drawn) for position, name in part.items()}
        if ranks.is_main:
            self._note_drawn((replace(one, picture=names[one.position]), ranking) for one, ranking, _ in chosen)
        for position, entry in enumerate(self.entries):
            if entry.class_name == name:
                self._kept.pop(position, None)

    def gather_state(self, ranks: Ranks) -> Any:
        """See `run_record.Part`."""
        self._gather(ranks)
        with self._lock:
            candidates = {
                name: [(one.position, one.decision, one.picture) for one in part.values()]
                for name, part in self._candidates.items()
            }
        return self.rows, candidates

    def restore(self, state: Any) -> None:
        """See `run_record.Part`."""
        self.rows, candidates = state
        for name, part in candidates.items():
            self._candidates[name] = {one[0]: _Candidate(*one) for one in part}

    def restart_class(self, name: str) -> None:
        """See `run_record.Part`."""
        self.rows = [row for row in self.rows if self.entries[row[0]].class_name != name]
        self._candidates.pop(name, None)

    def write_index(self) -> None:
        """Write pictures.csv, the list of what was drawn. To be called on the main process after the run."""
        if self.rows:
            order = {name: number for number, name in enumerate(dict.fromkeys(one.class_name for one in self.entries))}
            rows = sorted(self.rows, key=lambda row: order[self.entries[row[0]].class_name])  # a stable sort
            self.folder.write_text(INDEX, csv_lines([INDEX_COLUMNS, *(row for _, row in rows)]))

    def files_of(self, position: int) -> tuple[str, str]:
        """The names of an image's picture and map; empty where there is none."""
        pictures = {drawn: row[0] for drawn, row in self.rows}
        return pictures.get(position, ""), map_name(self.outputs[position]).as_posix() if self.options.save_maps else ""

    def _gather(self, ranks: Ranks) -> None:
        """Bring the candidates of all processes together on the main one."""
        with self._lock:
            own = {name: dict(part) for name, part in self._candidates.items()}
        for part in ranks.gather(own)[1:]:
            for name, candidates in part.items():
                self._candidates[name] |= candidates

    def _label(self, candidate: _Candidate) -> int:
        return self.entries[candidate.position].anomaly

    def _ranked(self, candidates: Collection[_Candidate]) -> dict[int, _Candidate]:
        """Those among the first of any ranking, by position."""
        return {one.position: one for ranking in RANKINGS for one in self._first(candidates, ranking)}

    def _first(self, candidates: Collection[_Candidate], ranking: str) -> list[_Candidate]:
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
            entry, worth = self.entries[candidate.position], WORDS[self._outcome(candidate)]
            row = candidate.picture, entry.relative_path, entry.class_name, worth, reason
            self.rows.append((candidate.position, row))

    def _outcome(self, candidate: _Candidate) -> str:
        return outcome(self._label(candidate), candidate.decision.called)

    def _draw(self, candidate: _Candidate, prediction: Prediction, reason: str) -> str:
        """Draw an image; the name of its picture."""
        assert self.draw is not None
        position, entry = candidate.position, self.entries[candidate.position]
        label = "anomalous" if entry.anomaly else "normal"
        notes = [f"{WORDS[self._outcome(candidate)]}: labelled {label}", *([reason] if reason else [])]
        whole = read_image(entry.image_path)
        image = reduced(whole, self.options.most_side)
        if image is not whole:
            notes.append(f"drawn at {image.width / whole.width:.0%} of its size")
        truth = self._truth(entry, image.size)
        picture = self.draw(image, candidate.decision, prediction.values(image.size), truth, "; ".join(notes))
        return save_drawn(picture, self.folder, self.outputs[position], self.options)

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

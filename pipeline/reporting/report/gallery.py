"""The gallery of the report: a card for each image, kept while the run goes by, within a number of bytes."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from AnomalyCLIP_lib.decisions import Decision
from pipeline.distributed import ALONE, Ranks
from pipeline.reporting.observing import ScoredImage
from pipeline.reporting.outcomes import error, outcome
from pipeline.reporting.report.thumbnails import Thumbnails, make_thumbnails

MOST_CARDS = 2000
LARGEST_REPORT = 15_000_000
"""Bytes of the whole file, for a dataset of up to some 60 classes."""
FIXED_BYTES, BYTES_PER_CLASS, BYTES_PER_CARD = 150_000, 35_000, 1_300
"""What the page holds besides pictures, rounded up: styles and settings, curves and table rows, the text of a card."""
LEAST_BYTES, MOST_BYTES = 800, 40_000
"""Of one card's pictures."""


@dataclass(frozen=True)
class Card:
    """One image in the gallery.

    Attributes:
        position: number of the image in the run, from 0.
        name: its path as predictions.csv has it.
        class_name: empty where there are no classes.
        label: 0 normal, 1 anomalous, None unknown.
        decision: score, decision and regions.
        thumbnails: what is shown of it.
    """

    position: int
    name: str
    class_name: str
    label: int | None
    decision: Decision
    thumbnails: Thumbnails

    @property
    def outcome(self) -> str:
        """A key of `outcomes.OUTCOMES` or `outcomes.DECISIONS`."""
        return outcome(self.label, self.decision.called)

    @property
    def error(self) -> float:
        """See `outcomes.error`."""
        return error(self.label, self.decision)


class Gallery:
    """An `observing.Observer` that keeps the cards of each class whose errors are the largest.

    Pictures are made when their image comes by and kept encoded, so that memory is bounded by the size of the report.

    Args:
        class_sizes: number of images of each class; {"": number} for images without classes.
        most_cards: of all classes together. Where there are more images, classes get equal shares.

    Attributes:
        cards: of the classes that are complete, on the main process.
    """

    needs_maps = True

    def __init__(self, class_sizes: Mapping[str, int], most_cards: int = MOST_CARDS):
        self.cards: list[Card] = []
        self.shares = _shares(class_sizes, most_cards)
        self.byte_budget = byte_budget(sum(self.shares.values()), len(class_sizes))
        # Per class that is under way, by position. What it ends with does not depend on the order of the images.
        self._kept: dict[str, dict[int, Card]] = {name: {} for name in class_sizes}
        self._lock = threading.Lock()

    def observe(self, scored: ScoredImage) -> None:
        """Make the card of this image, if it can still have a place."""
        place = error(scored.label, scored.decision), -scored.position
        with self._lock:
            kept, share = self._kept[scored.class_name], self.shares[scored.class_name]
            if len(kept) >= share and (not share or place < min(map(_place, kept.values()))):
                return
        threshold = scored.decision.thresholds.pixel.value
        thumbnails = make_thumbnails(scored.picture, scored.size, scored.values, threshold, self.byte_budget)
        card = Card(scored.position, scored.name, scored.class_name, scored.label, scored.decision, thumbnails)
        with self._lock:
            kept = self._kept[scored.class_name]  # another one where it was gathered meanwhile
            kept[scored.position] = card
            if len(kept) > share:
                del kept[min(kept.values(), key=_place).position]

    def end_class(self, name: str, ranks: Ranks = ALONE) -> None:
        """Bring the cards of all processes together on the main one."""
        self._gather([name], ranks)
        self.cards += by_error(self._kept.pop(name).values())

    def gather_state(self, ranks: Ranks) -> tuple[list[Card], dict[str, dict[int, Card]]]:
        """See `run_record.Part`."""
        self._gather(list(self._kept), ranks)
        with self._lock:
            return list(self.cards), {name: dict(kept) for name, kept in self._kept.items()}

    def restore(self, state: tuple[list[Card], dict[str, dict[int, Card]]]) -> None:
        """See `run_record.Part`."""
        self.cards, self._kept = state

    def restart_class(self, name: str) -> None:
        """See `run_record.Part`."""
        self.cards = [card for card in self.cards if card.class_name != name]
        self._kept[name] = {}

    def _gather(self, names: Sequence[str], ranks: Ranks) -> None:
        if ranks.size == 1:
            return
        with self._lock:
            own = {name: self._kept[name] for name in names}
            self._kept |= {name: {} for name in names}
        together: dict[str, dict[int, Card]] = {name: {} for name in names}
        for part in ranks.gather_lazily(own):
            for name, cards in part.items():
                best = by_error([*together[name].values(), *cards.values()])[: self.shares[name]]
                together[name] = {card.position: card for card in best}
        with self._lock:
            for name, cards in together.items():
                self._kept[name] = cards | self._kept[name]


def _place(card: Card) -> tuple[float, int]:
    return card.error, -card.position


def by_error(cards: Iterable[Card]) -> list[Card]:
    """The worst mistake first; equal ones in the order of the run."""
    return sorted(cards, key=lambda card: (-card.error, card.position))


def byte_budget(cards: int, classes: int) -> int:
    """Bytes for the pictures of one card, so that the report stays within `LARGEST_REPORT`."""
    room = LARGEST_REPORT - FIXED_BYTES - classes * BYTES_PER_CLASS - cards * BYTES_PER_CARD
    return int(min(max(room * 3 / 4 / max(cards, 1), LEAST_BYTES), MOST_BYTES))  # base64 makes 4 bytes of 3


def _shares(class_sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """How many cards each class gets: all where they fit, else equal shares; small classes leave room to others."""
    shares = dict.fromkeys(class_sizes, 0)
    room, waiting = most, len(class_sizes)
    for name in sorted(class_sizes, key=lambda name: class_sizes[name]):
        shares[name] = min(class_sizes[name], room // waiting)
        room -= shares[name]
        waiting -= 1
    return shares

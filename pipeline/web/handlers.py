"""What happens when a visitor does something: plain values in, what the page shows out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.decisions import Threshold, Thresholds
from AnomalyCLIP_lib.errors import InputError
from pipeline.web import downloads, markup
from pipeline.web.scoring import MOST_FILES, Refused, Scored, Scorer

SLIDER_SOURCE = "set by the slider"
NOT_KEPT = "These results are not kept any more; give the pictures once more."


@dataclass(frozen=True)
class Results:
    """What one visitor has had scored, in the order of the files."""

    files: tuple[Scored | Refused, ...] = ()

    @property
    def scored(self) -> list[Scored]:
        return [one for one in self.files if isinstance(one, Scored)]

    @property
    def refused(self) -> list[Refused]:
        return [one for one in self.files if isinstance(one, Refused)]


@dataclass(frozen=True)
class Handlers:
    """For all visitors; what belongs to one of them comes with every call.

    Attributes:
        scorer: the model.
        thresholds: what the sliders start from and return to.
    """

    scorer: Scorer
    thresholds: Thresholds

    def at_sliders(self, image: float, pixel: float) -> Thresholds:
        """The thresholds of the sliders; one that was not moved keeps its exact value and its source."""
        return Thresholds(_moved(self.thresholds.image, image), _moved(self.thresholds.pixel, pixel))

    def score(
        self, paths: Sequence[str] | None, before: Results | None, progress: Any = None
    ) -> tuple[Results, list[str]]:
        """Score the files that `before` does not hold yet; also the sentences about what was left out."""
        wanted = list(dict.fromkeys(paths or ()))
        known = {str(one.path): one for one in (before.files if before is not None else ())}
        done: list[Scored | Refused] = []
        for number, path in enumerate(wanted[:MOST_FILES]):
            if progress is not None:
                progress((number, min(len(wanted), MOST_FILES)), desc=f"scoring {Path(path).name}", unit="pictures")
            done.append(known.get(path) or self.scorer.score(Path(path)))
        left_out = len(wanted) - len(done)
        sentences = []
        if left_out:
            sentences.append(
                f"{len(wanted)} files were given; this page takes {MOST_FILES} at once, so the last {left_out} were "
                "left out."
            )
        return Results(tuple(done)), sentences

    def show(
        self, results: Results | None, chosen: int, image: float, pixel: float, opacity: float, outlined: bool
    ) -> tuple[str, str, str]:
        """Verdict and picture of the chosen one and the table of all, drawn anew; no model is asked."""
        scored = results.scored if results is not None else []
        if not scored:
            return (markup.EMPTY if results is not None else markup.problems((), [NOT_KEPT])), "", ""
        thresholds = self.at_sliders(image, pixel)
        return (
            markup.verdict(_chosen(results, chosen), thresholds),
            markup.picture(_chosen(results, chosen), self._outlined_at(pixel, outlined), opacity),
            markup.overview(scored, thresholds),
        )

    def heat_map(
        self, results: Results | None, chosen: int, pixel: float, opacity: float, outlined: bool
    ) -> tuple[str, bytes]:
        """The chosen picture as drawn, at its own size; name and PNG."""
        return downloads.heat_map(_chosen(results, chosen), self._outlined_at(pixel, outlined), opacity)

    def anomaly_map(self, results: Results | None, chosen: int) -> tuple[str, bytes]:
        """The chosen picture's smoothed map; name and .npy."""
        return downloads.anomaly_map(_chosen(results, chosen))

    def table(self, results: Results | None, image: float, pixel: float) -> tuple[str, bytes]:
        """All pictures at the sliders' thresholds; name and CSV."""
        if results is None:
            raise InputError(NOT_KEPT)
        return downloads.TABLE_NAME, downloads.table(results.files, self.at_sliders(image, pixel))

    def _outlined_at(self, pixel: float, outlined: bool) -> float | None:
        return _moved(self.thresholds.pixel, pixel).value if outlined else None


def _chosen(results: Results | None, position: int) -> Scored:
    scored = results.scored if results is not None else []
    if not scored:
        raise InputError(NOT_KEPT)
    return scored[min(position, len(scored) - 1)]


def _moved(original: Threshold, value: float) -> Threshold:
    if abs(value - slider_position(original.value)) < 1e-9:
        return original
    return Threshold(float(value), SLIDER_SOURCE)


def slider_position(value: float) -> float:
    """A calibration that allows nothing to be anomalous gives a threshold above 1, where no slider goes."""
    return min(value, 1.0)

"""What became of an image at the threshold, and how far from the right side its score lies."""

from AnomalyCLIP_lib.decisions import ANOMALOUS, NORMAL, Decision

OUTCOMES = {
    "false-negative": "false negative",
    "false-positive": "false positive",
    "true-positive": "true positive",
    "true-negative": "true negative",
}
"""Of an image whose label is known: key and name, the mistakes first."""

DECISIONS = {ANOMALOUS: "called anomalous", NORMAL: "called normal"}
"""Of an image whose label is not known."""


def outcome(label: int | None, called: str) -> str:
    """A key of `OUTCOMES`, or of `DECISIONS` where the label (0 normal, 1 anomalous) is None."""
    if label is None:
        return called
    right = "true" if (called == ANOMALOUS) == bool(label) else "false"
    return f"{right}-{'positive' if called == ANOMALOUS else 'negative'}"


def error(label: int | None, decision: Decision) -> float:
    """How far the score lies on the wrong side of the image threshold; negative on the right side.

    Without a label it is how far the score reaches above the threshold: the most suspicious image has the largest.
    """
    above = decision.anomaly_score - decision.thresholds.image.value
    return -above if label == 1 else above

"""The prompts under the name that the authors' code gives their module."""

from AnomalyCLIP_lib.prompts import ABNORMAL, NORMAL, HandwrittenPrompts, PromptLearner, Prompts

__all__ = ["ABNORMAL", "NORMAL", "HandwrittenPrompts", "PromptLearner", "Prompts"]

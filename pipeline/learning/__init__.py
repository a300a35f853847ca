"""Merging coefficients learned from images: AdaMerging and the label-tuned baseline."""

from pipeline.learning.coefficients import Coefficients, load_coefficients, save_coefficients
from pipeline.learning.loop import learn_coefficients
from pipeline.learning.options import FitData, LearningOptions
from pipeline.learning.run import Progress
from pipeline.learning.selection import select_coefficient

__all__ = [
    "Coefficients",
    "FitData",
    "LearningOptions",
    "Progress",
    "learn_coefficients",
    "load_coefficients",
    "save_coefficients",
    "select_coefficient",
]

"""The figures of a report, each as one `<svg>` element that can stand beside others in a page."""

from __future__ import annotations

from einthoven.report.curves import validation_curves
from einthoven.report.differences import label_differences
from einthoven.report.ecg import ecg_figure, ecg_paper

__all__ = ["ecg_figure", "ecg_paper", "label_differences", "validation_curves"]

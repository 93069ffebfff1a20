"""Metrics of arrays: what each label's ranking is worth. Everything that scores stands on these."""

from einthoven.metrics.label_metrics import auroc, average_precision, f_max, trapezoid_auprc

__all__ = ["auroc", "average_precision", "f_max", "trapezoid_auprc"]

"""Predictions and embeddings of records and cohorts by a model."""

from einthoven.backbones.inference import device_of
from einthoven.inference.cohorts import (
    CALIBRATED,
    calibrate_table,
    check_uncalibrated,
    predict_cohort,
)
from einthoven.inference.embedding_files import EmbeddingFile
from einthoven.inference.embeddings import embed_cohort, embed_files
from einthoven.inference.records import (
    Predictor,
    RecordPrediction,
    on_device,
    predict_record,
    with_leads,
)
from einthoven.inference.tables import PredictionFile, predict, refuse_models, write_predictions

__all__ = [
    "CALIBRATED",
    "EmbeddingFile",
    "PredictionFile",
    "Predictor",
    "RecordPrediction",
    "calibrate_table",
    "check_uncalibrated",
    "device_of",
    "embed_cohort",
    "embed_files",
    "on_device",
    "predict",
    "predict_cohort",
    "predict_record",
    "refuse_models",
    "with_leads",
    "write_predictions",
]


def __dir__() -> list[str]:
    return sorted(__all__)

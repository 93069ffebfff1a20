"""Predictions and embeddings of records and cohorts by a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einthoven.lazy import lazy_names

if TYPE_CHECKING:
    from einthoven.backbones.inference import device_of
    from einthoven.inference.cohorts import (
        CALIBRATED,
        calibrate_table,
        check_uncalibrated,
        predict_cohort,
    )
    from einthoven.inference.embedding_files import EmbeddingFile, Embeddings, read_embeddings
    from einthoven.inference.embeddings import Embedder, embed_cohort, embed_files
    from einthoven.inference.records import Predictor, RecordPrediction, predict_record
    from einthoven.inference.tables import (
        PredictionFile,
        predict,
        write_predictions,
    )
    from einthoven.inference.torch_runtime import on_device, with_leads

__all__ = [
    "CALIBRATED",
    "Embedder",
    "EmbeddingFile",
    "Embeddings",
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
    "read_embeddings",
    "with_leads",
    "write_predictions",
]

# Imported when they are first used, because many import torch.
__getattr__ = lazy_names(
    __name__,
    {
        "CALIBRATED": "inference.cohorts",
        "Embedder": "inference.embeddings",
        "EmbeddingFile": "inference.embedding_files",
        "Embeddings": "inference.embedding_files",
        "PredictionFile": "inference.tables",
        "Predictor": "inference.records",
        "RecordPrediction": "inference.records",
        "calibrate_table": "inference.cohorts",
        "check_uncalibrated": "inference.cohorts",
        "device_of": "backbones.inference",
        "embed_cohort": "inference.embeddings",
        "embed_files": "inference.embeddings",
        "on_device": "inference.torch_runtime",
        "predict": "inference.tables",
        "predict_cohort": "inference.cohorts",
        "predict_record": "inference.records",
        "read_embeddings": "inference.embedding_files",
        "with_leads": "inference.torch_runtime",
        "write_predictions": "inference.tables",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)

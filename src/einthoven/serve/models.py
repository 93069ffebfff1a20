"""A model on the server: what it answers to uploads, as JSON."""

from __future__ import annotations

import base64
import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EinthovenError, EvaluationError
from einthoven.files import Json
from einthoven.inference import Predictor, RecordPrediction
from einthoven.models import OnnxModel
from einthoven.records import Record
from einthoven.serve.description import description_of
from einthoven.serve.uploads import Upload

if TYPE_CHECKING:
    from einthoven.explain import Gallery
    from einthoven.inference.runtimes import AnyModel
    from einthoven.models import Model

SHOWN = 60.0
"""Seconds of a recording that an answer contains."""
MISSING = -(1 << 15)
"""Mark of a sample without a value among int16 microvolts."""
_SIMILAR = 5  # records
_BUCKET = 0.01  # s, over which an attribution is summed in an answer

Answer = Json | EinthovenError | OSError


@dataclass(frozen=True)
class PredictRequest:
    """An upload, and whether the answer contains its signal."""

    upload: Upload
    signal: bool = False


@dataclass(frozen=True)
class ExplainRequest:
    """An upload, and the label and method of its explanation."""

    upload: Upload
    label: str
    method: str = ""  # the default one


@dataclass(frozen=True)
class EmbedRequest:
    """An upload, and the level of its embedding."""

    upload: Upload
    level: str = "pooled"


@dataclass(frozen=True, eq=False)
class Similar:
    """Records among which similar ones are looked for.

    Attributes
    ----------
    gallery : einthoven.explain.Gallery
        Their embeddings by the model.
    labels : sequence of sequence of str
        Labels of each, in the order of the gallery.
    """

    gallery: Gallery
    labels: Sequence[Sequence[str]]

    def nearest(self, embedding: NDArray[np.float32], record: Record) -> list[Json]:
        """The nearest records of other patients: `record`, `distance` (1 - cosine), `labels`."""
        without = self.gallery.patients == record.patient if record.patient else None
        return [
            {
                "record": each.record,
                "distance": round(each.distance, 6),
                "labels": list(self.labels[each.row]),
            }
            for each in self.gallery.nearest(embedding, _SIMILAR, without=without)
        ]


class ServedModel:
    """A model that answers requests from several threads.

    Parameters
    ----------
    name : str
        Its name on the server.
    model : Model or OnnxModel
        An exported model predicts, and neither explains nor embeds.
    device : str
        As `einthoven.inference.device_of` gives it.
    most : int
        Largest number of records in a pass. `batch` is the number up to which a record has the
        same probabilities, bit for bit, as alone, on this machine.
    similar : Similar, optional
        Records among which explanations name similar ones.
    """

    def __init__(
        self,
        name: str,
        model: AnyModel,
        *,
        device: str = "cpu",
        most: int = 8,
        similar: Similar | None = None,
    ) -> None:
        self.name, self.model, self.device, self.similar = name, model, device, similar
        self.works = (self.predict, self.explain, self.embed)
        self.predictor = Predictor(model, device=device)
        self.batch = steady_batch(self.predictor, most)
        self._explaining = threading.Lock()

    @property
    def identity(self) -> Json:
        """Name and digest, which every answer contains."""
        return {"name": self.name, "digest": str(self.model.config.get("digest", ""))}

    def describe(self) -> Json:
        """What `GET /models` says about the model."""
        return description_of(self.name, self.model)

    def predict(self, requests: Sequence[PredictRequest]) -> list[Answer]:
        """Predictions of several uploads, in one pass of the network."""
        results = self.predictor([request.upload.read for request in requests])
        return [
            self._prediction(request, result)
            if isinstance(result, RecordPrediction)
            else _named(result, request.upload)
            for request, result in zip(requests, results, strict=True)
        ]

    def _prediction(self, request: PredictRequest, prediction: RecordPrediction) -> Json:
        record = prediction.record
        return {
            "model": self.identity,
            **prediction.to_json(request.upload.name or "upload"),
            "sha256": record.source_hash,
            "duration": record.duration,
            "rate": record.rate,
            "leads": list(record.leads),
            **({"signal": signal_of(record)} if request.signal else {}),
        }

    def explain(self, requests: Sequence[ExplainRequest]) -> list[Answer]:
        """Attributions, one after the other."""
        return [self._explanation(request) for request in requests]

    def _explanation(self, request: ExplainRequest) -> Answer:
        try:
            model = self._explained
            # Imported here, as what embeds below, because both import torch.
            from einthoven.explain import DEFAULT, METHODS, attribute, shares_of

            method = request.method or DEFAULT
            record = request.upload.read()
            with self._explaining:
                result = attribute(model, record, request.label, method)
            shares = shares_of(result, record)
            similar = self._similar_to(record)
        except (EinthovenError, OSError) as error:
            return _named(error, request.upload)
        width = max(1, round(_BUCKET * result.rate))
        return {
            "model": self.identity,
            "record": request.upload.name or "upload",
            "label": result.label,
            "method": result.method,
            "summary": METHODS[result.method].summary,
            "is_for_label": result.is_for_label,
            "baseline": result.baseline,
            "output": result.output,
            "baseline_output": result.baseline_output,
            "completeness_error": result.completeness_error,
            "words": shares.in_words(),
            "by_lead": shares.by_lead,
            "by_wave": shares.by_wave,
            "against": shares.against,
            **({} if similar is None else {"similar": similar}),
            "rate": result.rate / width,
            "leads": list(result.leads),
            "values": [
                [float(f"{value:.4g}") for value in row] for row in _summed(result.values, width)
            ],
        }

    @cached_property
    def _explained(self) -> Model:
        """A copy for explanations, whose hooks and gradients predictions must not meet."""
        model = self._in_torch()
        return replace(model, network=copy.deepcopy(model.network))

    def _in_torch(self) -> Model:
        """The model. EvaluationError if it is an exported one."""
        if isinstance(self.model, OnnxModel):
            raise EvaluationError(
                f"{self.name} is an exported model, which only predicts",
                remedy="serve the model folder, in PyTorch: einthoven serve MODEL",
            )
        return self.model

    def _similar_to(self, record: Record) -> list[Json] | None:
        """The nearest records, or None without any to search."""
        if self.similar is None:
            return None
        return self.similar.nearest(self._embedded(record, "pooled"), record)

    def _embedded(self, record: Record, level: str) -> NDArray[np.float32]:
        model = self._in_torch()
        from einthoven.inference import Embedder

        embedder = Embedder(model, level, precision="fp32", device=self.device)
        return np.asarray(embedder.embed(record))

    def embed(self, requests: Sequence[EmbedRequest]) -> list[Answer]:
        """Embeddings, one after the other."""
        return [self._embedding(request) for request in requests]

    def _embedding(self, request: EmbedRequest) -> Answer:
        try:
            array = self._embedded(request.upload.read(), request.level)
        except (EinthovenError, OSError) as error:
            return _named(error, request.upload)
        return {
            "model": self.identity,
            "record": request.upload.name or "upload",
            "level": request.level,
            "shape": list(array.shape),
            "embedding": array.tolist(),
        }


def steady_batch(predictor: Predictor, most: int) -> int:
    """Largest batch in which every record has the probabilities, bit for bit, that it has alone.

    Matrix products of another size may add in another order. All sizes up to `most` are tried with
    simulated ECGs; the first one that changes a bit ends the search.
    """
    record = sample_record()
    records = [
        replace(record, signal=np.roll(record.signal, 311 * i, axis=1) * np.float32(1 - i / 50))
        for i in range(most)
    ]

    def values(batch: Sequence[Record]) -> list[Any]:
        results = predictor([lambda record=record: record for record in batch])  # type: ignore[misc]
        fields = ("uncalibrated", "probabilities", "values")
        return [
            str(result)
            if isinstance(result, Exception)
            else [getattr(result, field) for field in fields]
            for result in results
        ]

    alone = [values([record])[0] for record in records]
    for size in range(2, most + 1):
        if values(records[:size]) != alone[:size]:
            return size - 1
    return most


def signal_of(record: Record) -> Json:
    """The first minute of a record: int16 microvolts of each lead, little-endian, in base64."""
    samples = record.signal[:, : round(SHOWN * record.rate)]
    scaled = np.clip(np.round(samples.astype(np.float64) * 1000), MISSING + 1, -MISSING - 1)
    counts = np.where(np.isnan(scaled), MISSING, scaled).astype("<i2")
    return {
        "rate": record.rate,
        "leads": list(record.leads),
        "unit": "uV",
        "missing": MISSING,
        "samples": [base64.b64encode(row.tobytes()).decode() for row in counts],
    }


def _summed(values: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """Sums over `width` samples, (leads, buckets); the last bucket may be shorter."""
    starts = np.arange(0, values.shape[1], width)
    return np.add.reduceat(values.astype(np.float64), starts, axis=1)


def _named(error: EinthovenError | OSError, upload: Upload) -> EinthovenError | OSError:
    """The error with the name that the sender gave the file."""
    if isinstance(error, EinthovenError) and upload.name:
        place = upload.place
        if error.problem.startswith(place):
            error.problem = upload.name + error.problem.removeprefix(place)
    return error

"""An exported model: one ONNX file, which needs onnxruntime and not PyTorch.

Its graph begins where a record has the model's leads and rate, after the preparation's steps before
the window:

==================  =======  ==============================  =======================================
name                type     shape                           content
==================  =======  ==============================  =======================================
ecg (input)         float32  (records, leads, samples)       mV; samples from one window on
probabilities       float32  (records, labels or classes)    calibrated
uncalibrated        float64  (records, labels or classes)    before calibration
values              float64  (records, numbers)              instead of both, for numbers
==================  =======  ==============================  =======================================

The graph cuts the evaluation crops, applies the steps after the window, runs the network,
aggregates the crops and calibrates. The metadata describe it: `einthoven` is the model's
config.json, and the other entries repeat in plain words what another program needs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import BackboneError, CalibrationError, ModelError, PreparationError
from einthoven.files import Json
from einthoven.models.config import COPY_AGAIN, check_config
from einthoven.models.description import Described
from einthoven.predictions.calibration import Calibration, ClassCalibration, read_calibration
from einthoven.predictions.sets import Sets, read_sets
from einthoven.signals.preparation import Preparation

if TYPE_CHECKING:
    from einthoven.models.model import Model

SUFFIX = ".onnx"
INPUT, PROBABILITIES, UNCALIBRATED, VALUES = "ecg", "probabilities", "uncalibrated", "values"
CONFIG, ZEROS, SIZE, DIGEST = "einthoven", "missing_leads", "graph_bytes", "graph_sha256"
"""Keys of the metadata: config.json; whether missing leads are zeros; size and digest of the
graph, which is everything in front of the metadata."""

_CROPS_AT_A_TIME = 8  # their intermediate results stay in a core's cache


def is_onnx(path: str | Path) -> bool:
    """Whether a path names an ONNX file."""
    return Path(path).suffix.lower() == SUFFIX


@dataclass(frozen=True, eq=False, repr=False)
class OnnxModel(Described):
    """An exported model in onnxruntime.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
    preparation : Preparation
        From a Record to the input of the network; the graph begins at its window.
    calibration : Calibration, ClassCalibration or None
    sets : LabelSets, ClassSets, ValueIntervals or None
    config : dict
        The config.json of the exported model.
    zeros_for_missing : bool
        Whether the network takes zeros for leads that are missing, which is the same as going
        without them; otherwise records without its leads are refused.
    """

    session: Any
    preparation: Preparation
    calibration: Calibration | ClassCalibration | None
    sets: Sets | None
    config: Json
    zeros_for_missing: bool

    def __repr__(self) -> str:
        return f"<OnnxModel {self.name}: {len(self.labels)} outputs>"

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the outputs."""
        labels = self.config["id2label"]
        return tuple(labels[str(place)] for place in range(len(labels)))

    @property
    def name(self) -> str:
        """Name of the model, or of its backbone."""
        return str(self.config.get("name") or self.config["backbone"])

    def outputs(self, records: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Predictions before calibration, (records, outputs).

        `records` are as `einthoven.signals.prepare.whole_record` gives them, (leads, samples),
        with all leads of the preparation.
        """
        rows = np.empty((len(records), len(self.labels)))
        names = [output.name for output in self.session.get_outputs()]
        output = UNCALIBRATED if UNCALIBRATED in names else VALUES
        for places in self._parts(records):
            batch = np.stack([records[place] for place in places])
            (rows[places],) = self.session.run([output], {INPUT: batch})
        return rows

    def _parts(self, records: Sequence[NDArray[np.float32]]) -> Iterator[list[int]]:
        """Places of records of the same length, a few at a time."""
        size = max(1, _CROPS_AT_A_TIME // self.preparation.evaluation_crops)
        by_length: dict[int, list[int]] = {}
        for place, record in enumerate(records):
            by_length.setdefault(record.shape[1], []).append(place)
        for places in by_length.values():
            yield from (places[start : start + size] for start in range(0, len(places), size))

    def with_zeros(self, record: NDArray[np.float32], leads: Sequence[str]) -> NDArray[np.float32]:
        """A record of some of the leads, (leads, samples), with zeros for the others."""
        whole = np.zeros((len(self.preparation.leads), record.shape[1]), np.float32)
        whole[[self.preparation.leads.index(lead) for lead in leads]] = record
        return whole

    def check_leads(self, rows: Sequence[str]) -> None:
        """Raise BackboneError if the network cannot go without the other leads."""
        missing = [lead for lead in self.preparation.leads if lead not in rows]
        if missing and not self.zeros_for_missing:
            raise BackboneError(
                f"{self.name}: its exported graph needs all of its leads, and "
                f"{', '.join(missing)} are missing",
                remedy="predict with the model folder, in PyTorch, or name a record with all leads",
            )


def open_model(path_or_name: str | Path, *, threads: int | None = None) -> Model | OnnxModel:
    """Open a model folder, a named model or an exported file.

    `threads` is that of `load_onnx`.

    Raises
    ------
    ModelError
        As `load_model` and `load_onnx`.
    """
    if is_onnx(path_or_name):
        return load_onnx(path_or_name, threads=threads)
    from einthoven.models.folder import load_model

    return load_model(path_or_name)


def load_onnx(path: str | Path, *, threads: int | None = None) -> OnnxModel:
    """Open an exported model and verify its digests.

    It runs on the CPU, in `threads` threads, or `OMP_NUM_THREADS` if that is set.

    Raises
    ------
    ModelError
        If onnxruntime is missing, or the file is missing, damaged or was not written by
        `einthoven export`.
    """
    file = Path(path)
    runtime = _onnxruntime()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read: {error.strerror}",
            remedy="name a file that `einthoven export` wrote",
        ) from error
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise ModelError(
            f"{file} cannot be opened by onnxruntime {runtime.__version__}: "
            f"{str(error).splitlines()[0]}",
            remedy="export the model again, or use another version of onnxruntime",
        ) from error
    metadata = session.get_modelmeta().custom_metadata_map
    if CONFIG not in metadata:
        raise ModelError(
            f"{file} holds no description of a model",
            remedy="name a file that `einthoven export` wrote",
        )
    graph = content[: int(metadata.get(SIZE, 0))]
    if hashlib.sha256(graph).hexdigest() != metadata.get(DIGEST):
        raise ModelError(f"{file} is damaged: its digest differs", remedy=COPY_AGAIN)
    config = check_config(json.loads(metadata[CONFIG]), file)
    calibration, sets = config["calibration"], config.get("sets")
    try:
        return OnnxModel(
            session=session,
            preparation=Preparation.from_dict(config["preparation"]),
            calibration=None if calibration is None else read_calibration(calibration),
            sets=None if sets is None else read_sets(sets),
            config=config,
            zeros_for_missing=metadata.get(ZEROS) == "zeros",
        )
    except (CalibrationError, PreparationError) as error:
        raise ModelError(f"{file}: {error.problem}", remedy=COPY_AGAIN) from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "onnxruntime, which runs exported models, is not installed",
            remedy="pip install onnxruntime, or predict with the model folder, in PyTorch",
        ) from error
    return onnxruntime

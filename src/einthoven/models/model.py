"""A network with everything that it needs to predict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.errors import ModelError, listed
from einthoven.files import Json
from einthoven.models.description import Described
from einthoven.predictions.calibration import Calibration, ClassCalibration
from einthoven.predictions.sets import Sets
from einthoven.signals.preparation import Preparation

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Model(Described):
    """A network with a head or an encoder, with its preparation, calibration and provenance.

    Attributes
    ----------
    network : Classifier or Backbone
        The network; `load_model` gives it in eval mode, on the CPU.
    preparation : Preparation
        From a Record to the input of the network.
    aggregate : str or tuple of str
        How the crops of a record are aggregated, for all labels or one rule per label
        (`einthoven.backbones.inference.aggregate_crops`).
    calibration : Calibration, ClassCalibration or None
        Temperature, bias and decision threshold of every label, or the temperature of classes;
        None if not fitted, and for numbers.
    sets : LabelSets, ClassSets, ValueIntervals or None
        Bounds of the answers that the calibration records do not rule out; None if not fitted.
    config : dict
        Contents of config.json. `save_model` keeps the descriptive entries (provenance, licence,
        descriptions, metrics) and writes those of the network and its preparation anew.
    fingerprints : dict of str to str
        Fingerprints of the records that the weights were trained on, for leakage checks
        (metadata of the weights file); empty if not recorded.
    evaluation : dict
        Contents of evaluation.json, which `save_model` keeps if it is of this model; empty if
        there is none.

    Raises
    ------
    ModelError
        If calibration or sets have another number of labels than the network.
    """

    network: Classifier | Backbone
    preparation: Preparation
    aggregate: str | tuple[str, ...] = "probability"
    calibration: Calibration | ClassCalibration | None = None
    sets: Sets | None = None
    config: Json = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    evaluation: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        fitted = {"calibration": self.calibration, "prediction sets": self.sets}
        for name, value in fitted.items():
            if value is not None and len(value) != len(self.labels):
                raise ModelError(
                    f"{name} of {len(value)} labels for a model of {len(self.labels)}",
                    remedy=f"fit the {name} on predictions of this model",
                )

    def __repr__(self) -> str:
        head = f"labels: {listed(self.labels)}" if self.labels else "no labels"
        return (
            f"<Model {self.name}: {self.backbone.name}, {head}; leads "
            f"{' '.join(self.preparation.leads)}, {self.preparation.rate:g} Hz>"
        )

    def predict(self, source: Any, **options: Any) -> DataFrame:
        """Predict ECGs by `einthoven.predict(source, model=self, **options)`.

        The function is the primary form: it has the same arguments as the command, and its room
        (`inference`) builds on this one, not the other way round.
        """
        from einthoven import predict

        return predict(source, model=self, **options)

    @property
    def backbone(self) -> Backbone:
        """The network without its head."""
        return self.network.backbone if isinstance(self.network, Classifier) else self.network

    @property
    def classifier(self) -> Classifier:
        """The network with its head.

        Raises
        ------
        ModelError
            If the model is an encoder without a head.
        """
        if isinstance(self.network, Classifier):
            return self.network
        raise ModelError(
            f"{self.name} is an encoder without a classification head",
            remedy="post-train it: einthoven posttrain COHORT --weights MODEL",
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the outputs; empty for an encoder without a head."""
        if not isinstance(self.network, Classifier):
            return ()
        outputs = self.network.head.out_features
        return self.network.labels or tuple(f"LABEL_{place}" for place in range(outputs))

    @property
    def name(self) -> str:
        """Name of the model, or of its backbone."""
        return str(self.config.get("name") or self.backbone.name)

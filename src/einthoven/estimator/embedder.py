"""Features of ECGs as a scikit-learn transformer, and the encoders that compute them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import EstimatorError
from einthoven.estimator.arrays import ArrayEstimator, source
from einthoven.files import Json, read_metadata
from einthoven.inference import on_device
from einthoven.inference.embeddings import crop_means
from einthoven.models import (
    WEIGHTS,
    Model,
    is_model,
    load_model,
    model_path,
    read_config,
    weights_file,
)
from einthoven.signals.preparation import Preparation
from einthoven.stages.data import adapt_preparation, check_fit
from einthoven.stages.recipe import Data
from einthoven.weights import load_backbone
from einthoven.weights.public import config_of_weights

Encoder = str | Path | Backbone | Classifier | Model


class EcgEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ArrayEstimator):  # type: ignore[misc]
    """A backbone's feature vector of every record: the mean over its evaluation crops.

    `fit` only reads the backbone and checks that it accepts the records.

    Parameters
    ----------
    backbone : str, path, Backbone, Classifier or Model
        A registered name (with `weights`), the folder or name of a model, or a network or model in
        memory.
    weights : path, optional
        Checkpoint of a registered name.
    options : mapping, optional
        Fields of a registered network's config.
    rate : float, optional
        Sampling rate of arrays, in hertz. Records have their own.
    leads : sequence of str, optional
        Names of X's leads, in its order; of Records, the leads to use (default: those that all
        have). The backbone selects its own by name; if X lacks some,
        the backbone's policy for missing leads applies.
    samples : int, optional
        Samples of a lead in a flattened X. Default: its columns over its leads.
    short : {"refuse", "pad"}
        Treatment of records shorter than the backbone's window: refusal, or zeros at the end.
    crop_seconds : float, optional
        Length of a crop. Default: the backbone's.
    evaluation_crops : int, optional
        Number of crops of a record, evenly spaced. Default: the backbone's.
    batch_size : int
        Records at a time; it bounds the memory.
    device : str or torch.device
        `cpu`, `auto`, `cuda`, ...
    n_jobs : int, optional
        Threads of PyTorch; -1 for all processors, None to leave them as they are.

    Attributes
    ----------
    backbone_ : Backbone
        In eval mode, on the CPU.
    preparation_ : Preparation
        Preparation of a record.
    n_features_in_ : int
        Leads times samples; not set by lists.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ArrayEstimator._parameter_constraints,
        "backbone": [str, Path, Backbone, Classifier, Model],
        "crop_seconds": [Interval(Real, 0, None, closed="neither"), None],
        "evaluation_crops": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        backbone: Encoder | None = None,
        *,
        weights: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        rate: float | None = None,
        leads: Sequence[str] | None = None,
        samples: int | None = None,
        short: str = "refuse",
        crop_seconds: float | None = None,
        evaluation_crops: int | None = None,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        n_jobs: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.options = options
        self.rate = rate
        self.leads = leads
        self.samples = samples
        self.short = short
        self.crop_seconds = crop_seconds
        self.evaluation_crops = evaluation_crops
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> EcgEmbedder:
        """Read the backbone, and prepare and encode one record as a check.

        Parameters
        ----------
        X : array of shape (records, leads, samples) or (records, leads * samples), or list
            Millivolts; or a list of Records, of paths, or of arrays of different lengths.
        y : ignored

        Raises
        ------
        ValueError
            If a parameter is impossible, or X does not match leads and samples.
        EinthovenError
            If the backbone cannot be read, or does not accept the records.
        """
        self._validate_params()
        store = self._store(self._flat(X)[:1])
        self.backbone_, preparation = open_encoder(
            self.backbone, leads=store.leads, weights=self.weights, options=self.options
        )
        crops = Data(crop_seconds=self.crop_seconds, evaluation_crops=self.evaluation_crops)
        self.preparation_ = self._with_short(adapt_preparation(preparation, crops))
        check_fit(self.backbone_, source(store, self.preparation_))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features, (records, feature_dim).

        Parameters
        ----------
        X : array of shape (records, leads, samples) or (records, leads * samples)
            Millivolts, as in `fit`.
        """
        check_is_fitted(self)
        records = source(self._store(self._flat(X, reset=False)), self.preparation_)
        device = self._device()
        network: Any = on_device(self.backbone_, device)
        out = np.empty((len(records), self._n_features_out), dtype=np.float32)
        with self._threads(), torch.no_grad():
            for start in range(0, len(out), self.batch_size):
                rows = np.arange(start, min(start + self.batch_size, len(out)))
                signals, owner = records.evaluation_crops(rows)
                features = network.features(signals.to(device)).float().cpu()
                out[rows] = crop_means(features, owner, len(rows)).numpy()
        return out

    @property
    def _n_features_out(self) -> int:
        """Number of features, from which scikit-learn derives their names."""
        return int(self.backbone_.feature_dim)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def open_encoder(
    encoder: Any,
    *,
    leads: Sequence[str],
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[Backbone, Preparation]:
    """Open an encoder, and the preparation of its signals.

    The encoder is a registered name, with `weights` (or a seed of random ones) and `options`; a
    model folder; the name of the included model or of a model on the hub; or a model in memory,
    which is copied. An encoder that reads more leads than the data is built for those that both
    have.

    Raises
    ------
    EstimatorError
        If arguments contradict each other.
    EinthovenError
        If the model cannot be read, or the backbone does not accept these leads.
    """
    network, preparation = _opened(encoder, weights, dict(options or {}), seed)
    present = tuple(lead for lead in preparation.leads if lead in leads)
    if not present:
        raise EstimatorError(
            f"the backbone reads {', '.join(preparation.leads)}, and X has {', '.join(leads)}",
            remedy="pass leads that the backbone reads",
        )
    if present != preparation.leads:
        network = _for_leads(network, present)
        # A network may compute limb leads from others: it then reads more leads than it has.
        preparation = preparation.with_leads(network.leads).deriving(present)
    return network.eval().requires_grad_(True), preparation


def backbone_name(encoder: Any) -> str:
    """Name of an encoder's backbone; nothing is loaded."""
    if _is_registered(encoder):
        return str(encoder)
    if isinstance(encoder, str | Path):
        return str(_config(encoder)["backbone"])
    network = encoder.backbone if isinstance(encoder, Model | Classifier) else encoder
    return str(network.name)


def initial_config(encoder: Any, weights: str | Path | None = None) -> Json | None:
    """Config of the model that `open_encoder` opens, for provenance and licence.

    None for random weights; empty for a network in memory, whose origin is not recorded.
    """
    if isinstance(encoder, Model):
        return encoder.config
    if _is_registered(encoder):
        return None if weights is None else config_of_weights(encoder, weights)
    return _config(encoder) if isinstance(encoder, str | Path) else {}


def initial_fingerprints(encoder: Any, weights: str | Path | None = None) -> dict[str, str]:
    """Fingerprints of the records that the weights of `open_encoder` have seen, if recorded."""
    if isinstance(encoder, Model):
        return encoder.fingerprints
    source = weights if _is_registered(encoder) else encoder
    if not isinstance(source, str | Path):
        return {}
    file = weights_file(source) if _is_registered(encoder) else model_path(source) / WEIGHTS
    return {key: value for key, value in read_metadata(file).items() if key != "format"}


def _is_registered(encoder: Any) -> bool:
    return isinstance(encoder, str) and encoder in backbone_names()


def _config(model: str | Path) -> Json:
    if not is_model(model) and not Path(model).exists() and "/" not in str(model):
        entry(str(model))  # refuses an unknown name, with suggestions
    return read_config(model)


def _opened(
    encoder: Any, weights: str | Path | None, options: dict[str, Any], seed: int | None
) -> tuple[Backbone, Preparation]:
    if _is_registered(encoder):
        if weights is not None:
            network = load_backbone(encoder, weights=weights, **options)
        elif seed is not None:
            network = create_backbone(encoder, seed=seed, **options)
        else:
            raise EstimatorError(
                f"{encoder} without weights would be a network of random numbers",
                remedy="pass weights, or train it from scratch: EcgClassifier(recipe='scratch')",
            )
        return network, network.preparation
    is_stored = isinstance(encoder, str | Path)
    if weights is not None or (options and not is_stored):
        text = str(encoder) if is_stored else f"a {type(encoder).__name__}"
        raise EstimatorError(
            f"`weights` and `options` do not apply to {text}, which is a model with its own",
            remedy="leave them out, or name a registered backbone",
        )
    if options:
        network = load_backbone(encoder, **options)
        return network, network.preparation
    if is_stored:
        _config(encoder)
    model = load_model(encoder) if is_stored else copy.deepcopy(encoder)
    network = model.backbone if isinstance(model, Model | Classifier) else model
    return network, model.preparation


def _for_leads(network: Backbone, leads: tuple[str, ...]) -> Backbone:
    """The same weights in a network that is built for fewer leads."""
    with torch.device("meta"):
        fewer = create_backbone(network.name, **{**network.config.options, "leads": leads})
    fewer.load_state_dict(network.state_dict(), assign=True)
    return fewer

"""Features of ECGs as a scikit-learn transformer, and the encoders that compute them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import EstimatorError
from einthoven.estimator.arrays import Layout, flattened, lent, threads, with_short
from einthoven.files import Json
from einthoven.models import Model, is_model, load_model, read_config
from einthoven.predict.embeddings import crop_means
from einthoven.signals.preparation import Preparation
from einthoven.stages.data import adapted, check_fit
from einthoven.stages.recipe import Data
from einthoven.weights import load_backbone
from einthoven.weights.public import config_of_weights

Source = str | Path | Backbone | Classifier | Model


class EcgEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A backbone's feature vector of every record: the mean over its evaluation crops.

    Nothing is learned: `fit` reads the backbone and checks that it takes the records.

    Parameters
    ----------
    backbone : str, path, Backbone, Classifier or Model
        A registered name (with `weights`), the folder or name of a model, or a network or model in
        memory; see `encoder_of`.
    weights : path, optional
        Checkpoint of a registered name.
    options : mapping, optional
        Fields of a registered network's config.
    rate : float
        Sampling rate of X, in hertz.
    leads : sequence of str
        Names of X's leads, in its order. The backbone picks its own by name; where X lacks some,
        the backbone's policy for fewer leads holds.
    samples : int, optional
        Samples of a lead in a flattened X; its columns over its leads without it.
    short : {"refuse", "pad"}
        What becomes of records shorter than the backbone's window: refused, or zeros at the end.
    crop_seconds : float, optional
        Length of a crop; the backbone's own without it.
    evaluation_crops : int, optional
        Crops of a record, evenly spaced; the backbone's own number without it.
    batch_size : int
        Records at a time: memory is bounded by it, whatever the size of X.
    device : str
        `cpu`, `auto`, `cuda`, ...
    n_jobs : int, optional
        Threads of PyTorch; -1 for all processors, None to leave them as they are.

    Attributes
    ----------
    backbone_ : Backbone
        In eval mode, on the CPU.
    preparation_ : Preparation
        What is done to a record.
    n_features_in_ : int
        Leads times samples.
    """

    def __init__(
        self,
        backbone: Source | None = None,
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
        device: str = "cpu",
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
        X : array of shape (records, leads, samples) or (records, leads * samples)
            Millivolts.
        y : ignored

        Raises
        ------
        EstimatorError
            When X, its leads and its rate do not fit each other; a ValueError.
        EinthovenError
            When the backbone cannot be read, or does not take the records.
        """
        x = validate_data(self, flattened(X, self.leads))
        layout = Layout.of(self, x.shape[1])
        backbone, preparation = encoder_of(
            self.backbone, leads=layout.leads, weights=self.weights, options=self.options
        )
        crops = Data(crop_seconds=self.crop_seconds, evaluation_crops=self.evaluation_crops)
        self.backbone_ = backbone
        self.preparation_ = with_short(adapted(preparation, crops), self.short)
        check_fit(backbone, layout.source(x[:1], self.preparation_))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features, (records, feature_dim).

        Parameters
        ----------
        X : array of shape (records, leads, samples) or (records, leads * samples)
            Millivolts, as in `fit`.
        """
        check_is_fitted(self)
        x = validate_data(self, flattened(X, self.leads), reset=False)
        source = Layout.of(self, x.shape[1]).source(x, self.preparation_)
        out = np.empty((len(x), self._n_features_out), dtype=np.float32)
        network = self.backbone_
        with lent(network, self.device) as device, threads(self.n_jobs), torch.no_grad():
            for start in range(0, len(x), self.batch_size):
                rows = np.arange(start, min(start + self.batch_size, len(x)))
                signals, owner = source.evaluation_crops(rows)
                features = network.features(signals.to(device)).float().cpu()
                out[rows] = crop_means(features, owner, len(rows)).numpy()
        return out

    @property
    def _n_features_out(self) -> int:
        """For the names of the features."""
        return int(self.backbone_.feature_dim)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        return tags


def encoder_of(
    source: Source | None,
    *,
    leads: Sequence[str],
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[Backbone, Preparation]:
    """Open an encoder, and the preparation of its signals.

    Parameters
    ----------
    source : str, path, Backbone, Classifier or Model
        A registered name, which needs `weights`; a model folder; the name of the included model or
        of a model on the hub; or a model in memory, which is copied.
    leads : sequence of str
        Leads of the data. An encoder that reads more leads is built for those that both have.
    weights : path, optional
        Checkpoint of a registered name.
    options : mapping, optional
        Fields of a registered network's config.
    seed : int, optional
        Seed of random weights for a registered name without `weights`.

    Returns
    -------
    Backbone
        In eval mode, on the CPU; not shared with the source.
    Preparation

    Raises
    ------
    EstimatorError
        If the source is missing, or arguments contradict each other.
    EinthovenError
        If the model cannot be read, or the backbone does not take these leads.
    """
    if source is None:
        raise EstimatorError(
            "backbone is missing",
            remedy="name one of `einthoven backbones`, or a model folder",
        )
    network, preparation = _opened(source, weights, dict(options or {}), seed)
    present = tuple(lead for lead in preparation.leads if lead in leads)
    if not present:
        raise EstimatorError(
            f"the backbone reads {', '.join(preparation.leads)}, and X has {', '.join(leads)}",
            remedy="give leads that the backbone reads",
        )
    if present != preparation.leads:
        network = _for_leads(network, present)
        # A network may compute limb leads from others: it then reads more leads than it has.
        preparation = preparation.with_leads(network.leads).deriving(present)
    return network.eval().requires_grad_(True), preparation


def initial_config(source: Source | None, weights: str | Path | None = None) -> Json | None:
    """Config of the model that `encoder_of` opens, for provenance and licence.

    Returns
    -------
    dict or None
        None for random weights; empty for a network in memory, whose origin is not recorded.
    """
    if isinstance(source, Model):
        return source.config
    if isinstance(source, str) and source in backbone_names():
        return None if weights is None else config_of_weights(source, weights)
    return read_config(source) if isinstance(source, str | Path) else {}


def _opened(
    source: Source, weights: str | Path | None, options: dict[str, Any], seed: int | None
) -> tuple[Backbone, Preparation]:
    if isinstance(source, str) and source in backbone_names():
        network = _registered(source, weights, options, seed)
        return network, network.preparation
    if weights is not None:
        raise EstimatorError(
            f"weights = {str(weights)!r} for {_text(source)}, which has weights of its own",
            remedy="leave weights out, or name the registered backbone that they are of",
        )
    if isinstance(source, str | Path) and Path(source).is_file() and not is_model(source):
        raise EstimatorError(
            f"{source} does not name the backbone whose weights it holds",
            remedy="name the backbone, and give the file as weights",
        )
    if options and isinstance(source, str | Path) and is_model(source):
        network = load_backbone(read_config(source)["backbone"], weights=source, **options)
        return network, network.preparation
    if options:
        raise EstimatorError(
            f"options = {options!r} for {_text(source)}, which is built already",
            remedy="leave options out, or name a registered backbone",
        )
    model = _read(source) if isinstance(source, str | Path) else copy.deepcopy(source)
    network = model.backbone if isinstance(model, Model | Classifier) else model
    return network, model.preparation


def _registered(
    name: str, weights: str | Path | None, options: dict[str, Any], seed: int | None
) -> Backbone:
    if weights is not None:
        return load_backbone(name, weights=weights, **options)
    if seed is None:
        raise EstimatorError(
            f"{name} without weights would be a network of random numbers",
            remedy="give weights=..., or train it from scratch: EcgClassifier(recipe='scratch')",
        )
    return create_backbone(name, seed=seed, **options)


def _read(source: str | Path) -> Model:
    if not is_model(source) and not Path(source).exists() and "/" not in str(source):
        entry(str(source))  # refuses an unknown name, with suggestions
    return load_model(source)


def _for_leads(network: Backbone, leads: tuple[str, ...]) -> Backbone:
    """The same weights in a network that is built for fewer leads."""
    with torch.device("meta"):
        fewer = create_backbone(network.name, **{**network.config.options, "leads": leads})
    fewer.load_state_dict(network.state_dict(), assign=True)
    return fewer


def _text(source: object) -> str:
    return repr(str(source)) if isinstance(source, str | Path) else f"a {type(source).__name__}"

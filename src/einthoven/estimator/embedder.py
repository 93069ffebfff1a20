"""Features of ECGs as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from einthoven.estimator.arrays import Layout, flattened, lent, threads, with_short
from einthoven.estimator.encoder import Given, encoder_of
from einthoven.predict.embeddings import crop_means
from einthoven.stages.data import adapted, check_fit
from einthoven.stages.recipe import Data


class EcgEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A backbone's feature vector of every record: the mean over its evaluation crops.

    Nothing is learned: `fit` reads the backbone and checks that it takes the records.

    Parameters
    ----------
    backbone : str, path, Backbone, Classifier or Model
        A registered name (with `weights`), an encoder's file that einthoven wrote, the folder or
        name of a bundle or of a saved model, or a model; see `einthoven.estimator.encoder`.
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
        backbone: Given | None = None,
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

"""A recipe on a backbone as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.base import ClassifierMixin

from einthoven.estimator.arrays import Targets
from einthoven.estimator.trained import TrainedEstimator

# Largest probability whose logit is finite: the last float64 below one.
_LARGEST = 1.0 - 2.0**-53


class EcgClassifier(ClassifierMixin, TrainedEstimator):  # type: ignore[misc]
    """A backbone with a linear head, trained by a recipe: the linear probe by default.

    y contains labels of 0 and 1, (records, labels), any number of which apply to a record (NaN is
    not known); or one class a record, (records,). A label, and the second of two classes, is a
    sigmoid; several classes are one softmax. Probabilities are not calibrated, and `predict` uses
    0.5 for labels: for clinical thresholds, calibrate on records that were not trained on.

    Parameters
    ----------
    backbone, weights, options, rate, leads, samples, short
        As for `EcgEmbedder`. A registered name needs `weights`, unless the recipe starts from
        random ones (`scratch`).
    recipe : str, path or Recipe
        `linear-probe`, `post-training`, `fine-tuning`, `scratch`, each with the settings of the
        backbone; a `.toml` file, or a Recipe.
    overrides : sequence of str
        Keys of the recipe, such as ``["stage1.epochs=20", "data.crop_seconds=2.5"]``.
    validation_fraction : float, "auto" or None
        Share of the groups that is held out, at most 0.5: it selects epoch and learning rate if the
        recipe requires it, and is not trained on afterwards (no `refit`, unlike in `posttrain`).
        None trains on all records and keeps the last epoch, and the learning rate that is best on
        (some of) the training records. "auto" is None for a linear probe by logistic regression,
        which needs no validation, and otherwise 0.1.
    batch_size : int
        Records at a time in prediction; training batches are the recipe's.
    device : str or torch.device
        `cpu`, `auto`, `cuda`, ...
    n_jobs : int, optional
        Threads of PyTorch; -1 for all processors, None to leave them as they are.
    random_state : int, RandomState or None
        Seed of training. None is the recipe's seed, so that two fits give the same result.
    verbose : int
        0 hides the progress and the decisions of `fit`, which are shown in terminals and notebooks
        only.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The classes, or the labels: the columns' names where y is a data frame, else numbers.
    classifier_ : Classifier
        The network, in eval mode, on the CPU.
    preparation_ : Preparation
        Preparation of a record.
    results_ : dict of str to dict of str to float
        A few numbers of `stage1` and `stage2`: `epochs`, `best_epoch` (the selected one), its
        `train_loss`, `validation_loss` and `macro_auroc`, `penalty` of a logistic regression, and
        `is_kept` (0 if the probe was no worse than fine-tuning). Validation records are those held
        out, or training records if there are none.
    history_ : dict of str to list of dict
        The metrics of every epoch of `stage1` and `stage2`.
    n_features_in_ : int
        Leads times samples.
    """

    def _targets(self, y: NDArray[Any], names: Sequence[Any] | None) -> Targets:
        return Targets.of(y, names)

    def _set_names(self, targets: Targets) -> None:
        self.classes_, self._kind = targets.classes, targets.kind

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, (records, classes) or (records, labels)."""
        outputs = self._outputs(X)
        if self._kind == "binary":
            return np.column_stack([1 - outputs[:, 0], outputs[:, 0]])
        return outputs

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits of the probabilities: (records,) of two classes, otherwise (records, outputs).

        Those of several classes are the logarithms of their probabilities.
        """
        outputs = np.clip(self._outputs(X), np.finfo(float).tiny, _LARGEST)
        if self._kind == "multiclass":
            return np.asarray(np.log(outputs))
        values: NDArray[np.float64] = logit(outputs)
        return values[:, 0] if self._kind == "binary" else values

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each record, or the labels with probabilities above 0.5."""
        shares = self.predict_proba(X)
        if self._kind == "multilabel":
            return (shares > 0.5).astype(int)
        return np.asarray(self.classes_[shares.argmax(axis=1)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

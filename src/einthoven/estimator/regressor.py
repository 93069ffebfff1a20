"""A recipe on a backbone as a scikit-learn regressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from einthoven.estimator.arrays import Targets
from einthoven.estimator.trained import TrainedEstimator


class EcgRegressor(RegressorMixin, TrainedEstimator):  # type: ignore[misc]
    """A backbone with a linear head that predicts numbers: by default a ridge regression.

    y contains numbers, (records,) or (records, numbers), which are standardised while they are
    learned; predictions are in their unit. NaN is not known.

    Parameters and attributes are those of `EcgClassifier`, without `classes_`. The number in
    `results_` is `mae`.
    """

    def _targets(self, y: NDArray[Any], names: Sequence[Any] | None) -> Targets:
        return Targets.numbers(y, names)

    def _set_names(self, targets: Targets) -> None:
        self._is_flat = targets.is_flat

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Numbers, (records,) or (records, numbers), as y was."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags

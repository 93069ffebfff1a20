"""scikit-learn's own checks of its conventions, on the flattened view.

They feed tables of one to twenty columns that are no ECGs: records of one lead that are padded to
a window of ten samples. What is expected to fail is listed with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from einthoven.backbones.registry import create_backbone
from einthoven.errors import EstimatorError
from einthoven.estimator import EcgClassifier, EcgEmbedder, EcgRegressor
from einthoven.models import SHIPPED, Model, save_model

ENCODER = "model"  # in the working directory: test names have to be short and fixed
OPTIONS = {"width": 32, "depth": 1, "window": 10, "scale": 1.0}
GIVEN: dict[str, Any] = {
    "options": OPTIONS,
    "rate": 100,
    "leads": ("I",),
    "short": "pad",
    "n_jobs": 1,
}
QUICK = [
    "data.augmentation='none'",
    "data.evaluation_crops=1",
]
ROUNDING = {
    "check_methods_subset_invariance": "wants the same to 1e-7 for float64 results. They come "
    "from a float32 network, whose sums for one record and for many are taken in another "
    "order: 4e-7 between them. (EcgEmbedder's float32 features are held to 1e-4, and pass.)",
}
EXPECTED: dict[type, dict[str, str]] = {
    EcgEmbedder: {},
    EcgRegressor: ROUNDING
    | {
        "check_regressors_train": "wants an R2 above 0.5 of numbers that are linear in columns; "
        "a random network of ECGs does not pass them on",
    },
    EcgClassifier: ROUNDING,
}


@pytest.mark.parametrize("kind", [EcgClassifier, EcgEmbedder, EcgRegressor])
def test_the_error_without_a_backbone_names_one(kind: Any) -> None:
    estimator = kind(**GIVEN)
    with pytest.raises(EstimatorError) as error:
        estimator.fit(np.ones((4, 10)), [0, 1, 0, 1])
    assert SHIPPED in error.value.remedy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an encoder's file, as pretraining writes it."""
    folder = tmp_path_factory.mktemp("checks")
    network = create_backbone("s4_tiny", seed=0, **OPTIONS)
    save_model(Model(network, network.preparation), folder / ENCODER)
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.filterwarnings("ignore::einthoven.signals.store.AmplitudeWarning")
@parametrize_with_checks(
    [
        EcgEmbedder(ENCODER, **GIVEN),
        EcgClassifier(ENCODER, overrides=QUICK, validation_fraction=None, **GIVEN),
        EcgRegressor(ENCODER, overrides=QUICK, validation_fraction=None, **GIVEN),
    ],
    expected_failed_checks=lambda estimator: EXPECTED[type(estimator)],
)
def test_conventions(estimator: Any, check: Any) -> None:
    check(estimator)

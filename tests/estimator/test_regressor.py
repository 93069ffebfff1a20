"""Estimators of numbers, of exclusive classes, and of labels that are partly unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven import EcgClassifier, EcgRegressor, predict
from einthoven.errors import EstimatorError
from einthoven.records.record import STANDARD_LEADS, Record


def numbers(arrays: Any) -> np.ndarray:
    """Something that the signals determine: the deviation of lead II, in another unit."""
    return 100 + 1000 * arrays.x[:, 1].std(axis=1)


def test_numbers_come_back_in_their_unit(arrays: Any) -> None:
    y = numbers(arrays)
    model = EcgRegressor(**arrays.given).fit(arrays.x, y, groups=arrays.patients)
    predicted = model.predict(arrays.x)
    assert predicted.shape == y.shape
    assert model.score(arrays.x, y) > 0.4
    assert model.results_["stage1"]["mae"] == pytest.approx(np.abs(predicted - y).mean(), rel=0.2)
    column = EcgRegressor(**arrays.given).fit(arrays.x, y[:, None], groups=arrays.patients)
    assert np.array_equal(column.predict(arrays.x)[:, 0], predicted)


def test_a_model_of_numbers_predicts_records(arrays: Any) -> None:
    y = np.stack([numbers(arrays), -numbers(arrays)], axis=1)
    y[:20, 1] = np.nan
    model = EcgRegressor(**arrays.given).fit(arrays.x, y)
    saved = model.to_model()
    assert saved.task.kind == "regression"
    record = Record.from_array(arrays.x[0], rate=arrays.given["rate"], leads=STANDARD_LEADS)
    frame = predict(record, saved)
    expected = model.predict(arrays.x[:1])[0]
    assert frame[["value:0", "value:1"]].to_numpy()[0] == pytest.approx(expected, rel=1e-4)
    assert abs(expected.sum()) < 20  # of numbers of several hundred


def test_classes_exclude_each_other(arrays: Any) -> None:
    values = numbers(arrays)
    y = np.array(["a", "b", "c"])[np.digitize(values, np.quantile(values, [0.3, 0.7]))]
    model = EcgClassifier(**arrays.given).fit(arrays.x, y)
    assert model.score(arrays.x, y) > 0.5  # the largest has 0.4
    assert np.allclose(model.predict_proba(arrays.x).sum(axis=1), 1)
    assert (model.to_model().task.kind, model.to_model().labels) == ("multiclass", ("a", "b", "c"))


def test_unknown_labels_are_left_out(arrays: Any) -> None:
    y = arrays.y[:, :3].astype(float)
    y[:50, 0] = np.nan
    partly = EcgClassifier(**arrays.given, overrides=["stage1.penalty=10"])
    known = EcgClassifier(**arrays.given, overrides=["stage1.penalty=10"])
    filled = np.where(np.isnan(y), 1, y).astype(int)
    probabilities = partly.fit(arrays.x, y).predict_proba(arrays.x)
    others = known.fit(arrays.x, filled).predict_proba(arrays.x)
    assert not np.allclose(probabilities[:, 0], others[:, 0], atol=0.05)
    assert np.allclose(probabilities[:, 1:], others[:, 1:], atol=1e-3)
    y[7:9] = np.nan
    with pytest.warns(UserWarning, match=r"\b2 of 148\b"):
        found = partly.fit(arrays.x, y, groups=arrays.patients).predict_proba(arrays.x)
    keep = np.setdiff1d(np.arange(148), [7, 8])
    fewer = known.fit(arrays.x[keep], y[keep], groups=arrays.patients[keep])
    assert np.allclose(found, fewer.predict_proba(arrays.x), atol=1e-6)
    with pytest.raises(EstimatorError):
        partly.fit(arrays.x, np.full(148, np.nan))


@pytest.mark.filterwarnings("ignore:40 of 148")
def test_unknown_targets_of_a_series_are_left_out(arrays: Any) -> None:
    values = pd.Series(numbers(arrays))
    classes = pd.Series(arrays.y[:, 0], name="AFIB")
    texts = pd.Series(np.where(values > 300, "high", "low"), dtype=object)
    keep = np.arange(40, 148)
    for kind, y in ((EcgRegressor, values), (EcgClassifier, classes), (EcgClassifier, texts)):
        gaps = y.where(np.arange(148) >= 40, None if y is texts else np.nan)
        found = kind(**arrays.given).fit(arrays.x, gaps)
        expected = kind(**arrays.given).fit(arrays.x[keep], y[keep])
        assert np.array_equal(found.predict(arrays.x), expected.predict(arrays.x))
        assert getattr(found, "classes_", np.array(())).tolist() == list(
            getattr(expected, "classes_", ())
        )

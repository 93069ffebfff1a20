"""Features of arrays are those of records, by whatever name the backbone is called."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

from einthoven import EcgClassifier, EcgEmbedder
from einthoven.backbones.classifier import Classifier
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import (
    BackboneError,
    EstimatorError,
    ModelError,
    PreparationError,
)
from einthoven.models import Model, save_model
from einthoven.records import Record, read_record
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import prepare_record
from einthoven.weights import load_backbone


def record(signal: np.ndarray, *, rate: float, leads: tuple[str, ...] = STANDARD_LEADS) -> Record:
    return Record(
        signal=signal, rate=rate, leads=leads, name="x", patient=None, source="", source_hash="",
        metadata={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def network(arrays: Any) -> Any:
    given = arrays.given
    return load_backbone(given["backbone"], weights=given["weights"], **given["options"])


def test_features_are_the_mean_over_each_record_s_crops(arrays: Any, network: Any) -> None:
    embed = EcgEmbedder(**arrays.given, crop_seconds=2.5, evaluation_crops=4).fit(arrays.x)
    found = embed.transform(arrays.x[:20])
    assert (found.shape, found.dtype) == ((20, 32), np.float32)
    preparation = network.preparation.with_window(seconds=2.5).with_evaluation_crops(4)
    with torch.no_grad():
        for signal, features in zip(arrays.x, found, strict=False):
            crops = prepare_record(preparation, record(signal, rate=arrays.given["rate"]))
            assert np.allclose(network.features(crops).mean(0), features, atol=1e-5)


def test_bytes_of_a_file_are_a_record(arrays: Any, tmp_path: Path) -> None:
    stated = {"rate": arrays.given["rate"], "unit": "mV", "leads": np.array(STANDARD_LEADS)}
    np.savez(tmp_path / "one.npz", ecg=arrays.x[1], **stated)
    content = (tmp_path / "one.npz").read_bytes()
    embed = EcgEmbedder(**arrays.given).fit(arrays.x)
    found = embed.transform([content, tmp_path / "one.npz"])
    assert np.allclose(found, embed.transform(arrays.x[[1, 1]]), atol=1e-5)
    with pytest.raises(EstimatorError, match=r"\b1\b"):
        embed.transform([content, io.BytesIO(content)])
    with pytest.raises(EstimatorError):
        embed.transform(content)


def test_the_rate_is_believed(arrays: Any, network: Any) -> None:
    at_50 = {**arrays.given, "rate": 50}
    found = EcgEmbedder(**at_50).fit_transform(arrays.x[:2])
    crops = prepare_record(network.preparation, record(arrays.x[1], rate=50))
    with torch.no_grad():
        assert np.allclose(network.features(crops).mean(0), found[1], atol=1e-5)


def test_both_views_of_x_and_every_batch_size_give_the_same(arrays: Any) -> None:
    x = arrays.x[:30]
    whole = EcgEmbedder(**arrays.given).fit_transform(x)
    flat = EcgEmbedder(**arrays.given, batch_size=7).fit(x).transform(x.reshape(30, -1))
    assert np.allclose(whole, flat, atol=1e-5)
    nested = EcgEmbedder(**arrays.given, samples=1000).fit_transform(x[:2].tolist())
    assert np.allclose(nested, whole[:2], atol=1e-5)


def test_leads_are_picked_by_name(arrays: Any) -> None:
    order = np.random.default_rng(0).permutation(12)
    shuffled = {**arrays.given, "leads": [STANDARD_LEADS[i].upper() for i in order]}
    expected = EcgEmbedder(**arrays.given).fit_transform(arrays.x[:5])
    found = EcgEmbedder(**shuffled).fit_transform(arrays.x[:5, order])
    assert np.allclose(found, expected, atol=1e-6)


def test_fewer_leads_are_the_network_s_own_policy(arrays: Any, network: Any) -> None:
    rows = [STANDARD_LEADS.index(lead) for lead in ("V2", "I")]
    given = {**arrays.given, "leads": ("V2", "I")}
    embed = EcgEmbedder(**given).fit(arrays.x[:3, rows])
    assert embed.preparation_.leads == ("I", "V2")
    found = embed.transform(arrays.x[:3, rows])
    crops = prepare_record(
        embed.preparation_, record(arrays.x[2, rows], rate=100, leads=("V2", "I"))
    )
    with torch.no_grad():
        expected = network.features(crops, leads=("I", "V2")).mean(0)
    assert np.allclose(found[2], expected, atol=1e-5)


def test_every_way_to_call_a_backbone(arrays: Any, network: Any, tmp_path: Path) -> None:
    given = dict(arrays.given)
    name, weights, options = (given.pop(key) for key in ("backbone", "weights", "options"))
    classifier = Classifier(network, ("a", "b"))
    shorter = network.preparation.with_window(seconds=5.0)
    bundle = Model(classifier, shorter)
    x = arrays.x[:4]
    expected = EcgEmbedder(name, weights=weights, options=options, **given).fit_transform(x)
    same = [
        EcgEmbedder(weights, options=options, **given),
        EcgEmbedder(str(weights), options=options, **given),
        EcgEmbedder(network, **given),
        EcgEmbedder(classifier, **given),
        *(
            EcgEmbedder(str(save_model(Model(net, net.preparation), tmp_path / place)), **given)
            for place, net in (("backbone", network), ("classifier", classifier))
        ),
    ]
    for embed in same:
        assert np.array_equal(embed.fit_transform(x), expected)
    cut = EcgEmbedder(name, weights=weights, options=options, crop_seconds=5.0, **given)
    expected = cut.fit_transform(x)  # a bundle has its own preparation
    own = [
        EcgEmbedder(bundle, **given),
        EcgEmbedder(save_model(bundle, tmp_path / "model"), **given),
        EcgEmbedder(save_model(bundle, tmp_path / "own"), **given),
    ]
    for embed in own:
        assert np.array_equal(embed.fit_transform(x), expected)
        assert embed.preparation_ == shorter


def test_a_model_that_is_given_is_left_alone(arrays: Any, network: Any) -> None:
    given = {k: v for k, v in arrays.given.items() if k not in ("backbone", "weights", "options")}
    network.train()
    embed = EcgEmbedder(network, **given).fit(arrays.x[:2])
    assert embed.backbone_ is not network
    assert network.training
    assert not embed.backbone_.training
    network.eval()


def test_it_works_in_pipelines_and_searches(arrays: Any) -> None:
    given = arrays.given
    model = make_pipeline(EcgEmbedder(**given), LogisticRegression())
    grid = {"ecgembedder__evaluation_crops": [1, 2], "logisticregression__C": [0.1, 1.0]}
    y = arrays.y[:60].argmax(axis=1) % 2
    search = GridSearchCV(model, grid, cv=2).fit(arrays.x[:60], y)
    assert set(search.best_params_) == set(grid)
    assert search.predict(arrays.x[:60].reshape(60, -1)).shape == (60,)
    names = search.best_estimator_[0].get_feature_names_out()
    assert (names[0], names[-1]) == ("ecgembedder0", "ecgembedder31")


@pytest.mark.parametrize("device", ["cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_devices_of_pytorch_are_accepted(arrays: Any, device: Any) -> None:
    found = EcgEmbedder(**arrays.given, device=device).fit_transform(arrays.x[:2])
    assert np.array_equal(found, EcgEmbedder(**arrays.given).fit_transform(arrays.x[:2]))


def test_short_records_are_refused_or_padded(arrays: Any) -> None:
    x = arrays.x[:3, :, :400]
    with pytest.raises(PreparationError):
        EcgEmbedder(**arrays.given).fit(x)
    padded = np.concatenate([x, np.zeros((3, 12, 600), np.float32)], axis=2)
    found = EcgEmbedder(**arrays.given, short="pad").fit_transform(x)
    assert np.allclose(found, EcgEmbedder(**arrays.given).fit_transform(padded), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rate": None}, EstimatorError, "rate.*leads"),
        ({"leads": None}, EstimatorError, "rate.*leads"),
        ({"rate": -100}, ValueError, "'rate'.*-100"),
        ({"rate": "100"}, ValueError, "'rate'.*'100'"),
        ({"leads": STANDARD_LEADS[:7]}, EstimatorError, "12 leads.*7"),
        ({"leads": (*STANDARD_LEADS[:11], "V7")}, BackboneError, "V7"),
        ({"samples": 500}, EstimatorError, "12000.*12 leads.*500 samples"),
        ({"backbone": None, "weights": None}, EstimatorError, "einthoven-small"),
        ({"backbone": "mtecg_tny", "weights": None, "options": None}, BackboneError, "mtecg_tny"),
        ({"weights": None}, EstimatorError, "mtecg_tiny_100hz.*weights"),
        ({"options": {"dept": 1}}, BackboneError, r"\bdept\b"),
        ({"n_jobs": 0}, ValueError, "'n_jobs'.*0"),
        ({"device": "gpu"}, EstimatorError, "gpu"),
        ({"device": 3}, ValueError, "'device'.*3"),
        ({"short": "stretch"}, ValueError, "'short'.*stretch"),
        ({"crop_seconds": 0.123456}, PreparationError, r"12\.3456"),
    ],
)  # fmt: skip
def test_refusals(
    arrays: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EcgEmbedder(**(arrays.given | changes)).fit_transform(arrays.x[:2])


def test_what_does_not_go_together_is_refused(arrays: Any, network: Any, tmp_path: Path) -> None:
    given = {k: v for k, v in arrays.given.items() if k not in ("backbone", "weights", "options")}
    weights = arrays.given["weights"]
    folder = save_model(Model(network, network.preparation), tmp_path / "model")
    torch.save({"model": network.state_dict()}, tmp_path / "x.pth")
    cases: list[tuple[EcgEmbedder, type[Exception], str]] = [
        (EcgEmbedder(folder, weights=weights, **given), EstimatorError, "weights"),
        (EcgEmbedder(network, weights=weights, **given), EstimatorError, "MTECG"),
        (EcgEmbedder(network, options={"depth": 1}, **given), EstimatorError, "options"),
        (EcgEmbedder(tmp_path / "x.pth", **given), ModelError, r"x\.pth.*config\.json"),
        (EcgEmbedder(tmp_path / "absent", **given), ModelError, "absent"),
    ]
    for embed, error, message in cases:
        with pytest.raises(error, match=message):
            embed.fit(arrays.x[:2])
    only_v1 = create_backbone("ecgfounder_1lead", seed=0)
    with pytest.raises(EstimatorError, match=r"\bI\b.*V1"):
        EcgEmbedder(only_v1, **(given | {"leads": ("V1",)})).fit(arrays.x[:2, :1])


def test_lists_of_records_paths_and_ragged_arrays(
    arrays: Any, synthetic: Cohort, encoder: Path
) -> None:
    paths = synthetic.paths()[:6]
    records = [read_record(path) for path in paths]
    expected = EcgEmbedder(**arrays.given).fit_transform(arrays.x[:6])
    bare = {"backbone": encoder}
    for X in (records, paths, [*map(str, paths[:3]), *records[3:]]):
        assert EcgEmbedder(**bare).fit_transform(X) == pytest.approx(expected, abs=1e-4)
    ragged = [signal[:, : 1000 - 50 * place] for place, signal in enumerate(arrays.x[:6])]
    features = EcgEmbedder(**arrays.given, short="pad").fit_transform(ragged)
    for place, signal in enumerate(ragged):
        alone = EcgEmbedder(**arrays.given, short="pad").fit_transform(signal[None])
        assert features[place] == pytest.approx(alone[0], abs=1e-4)
    with pytest.raises(EstimatorError, match=r"rate.*leads"):
        EcgEmbedder(**bare).fit(ragged)
    probe = EcgClassifier(**bare, validation_fraction=None, overrides=["stage1.epochs=1"])
    assert cross_val_predict(probe, records, [0, 1] * 3, cv=2).shape == (6,)


def test_missing_samples_are_named_by_record_and_lead(arrays: Any) -> None:
    x = arrays.x[:5].copy()
    x[3, 7, 5] = np.nan
    embedder = EcgEmbedder("einthoven-small", rate=np.array([[100]]), leads=STANDARD_LEADS)
    with pytest.raises(EstimatorError, match=r"\b3\b.*V2 .*1 of"):
        embedder.fit(x)


@pytest.mark.parametrize(("scale", "unit"), [(1000, "microvolts"), (1e-3, "volts")])
def test_other_units_are_refused(arrays: Any, scale: float, unit: str) -> None:
    embedder = EcgEmbedder(**arrays.given).fit(arrays.x[:3])
    for call in (embedder.fit, embedder.transform):
        with pytest.raises(EstimatorError, match=rf"\b{unit}\b"):
            call(scale * arrays.x[:3])
    with pytest.raises(EstimatorError, match=rf"\b{unit}\b"):
        embedder.transform([scale * arrays.x[0], scale * arrays.x[1][:, :900]])

"""Published S4 encoders are told by structure, and their C is set right; or they are refused."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from einthoven.weights.converted import convert_checkpoint
from safetensors.torch import save_file
from torch import Tensor

from einthoven.backbones.registry import create_backbone, entry
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, WeightsError
from einthoven.files import read_tensors
from einthoven.signals.store import Store
from einthoven.stages.pretrain import pretrain
from einthoven.stages.recipe import load_pretraining
from einthoven.training.distributed import Processes
from einthoven.weights import load_backbone, load_classifier, to_public
from einthoven.weights.s4 import AssumedLengthWarning

published: Any = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).with_name("published_s4.py")), run_name="published_s4")
)
Names, Published = published.Names, published.Published
SMALL = {"width": 6, "depth": 2}
OTHER_NAMES = Names(
    conv="net.0.stem.{i}.convolution",
    batch_norm="net.0.stem.{i}.bn",
    layer="net.1.blocks.{i}.ssm",
    kernel="k",
    output="out",
    norm="net.1.blocks.{i}.ln",
    step="dt",
    eigenvalues="Lambda",
)
State = dict[str, Tensor]


def written(state: State, folder: Path) -> Path:
    """As Lightning leaves it: the tensors among what training needs, and a head beside them."""
    head = {"model.head.weight": torch.ones(6, 6), "loss.scale": torch.ones(())}
    content = {
        "epoch": 9,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.2",
        "state_dict": state | head,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best_model_score": torch.tensor(1.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 3e-3},
    }
    torch.save(content, folder / "x.ckpt")
    return folder / "x.ckpt"


def kernels_of(net: Any, tokens: int) -> list[np.ndarray]:
    return [block.kernel(tokens).detach().numpy() for block in net.blocks]


@pytest.mark.parametrize(
    "freedom",
    [
        {},
        {"names": OTHER_NAMES},
        {"flat": True, "length": "number"},
        {"complex_tensors": True},
        {"causal": False},
        {"tokens": 41, "seed": 3},
        {"tokens": 300, "depth": 4, "seed": 1},
        {"state": 4, "stem": 2},
    ],
    ids=lambda freedom: "-".join(freedom) or "plain",
)
def test_kernels_and_tokens_are_those_of_the_definition(
    freedom: dict[str, Any], tmp_path: Path
) -> None:
    made = Published(**freedom)
    state, kernels = made.build()
    net: Any = load_backbone(
        "ecg_cpc",
        weights=written(state, tmp_path),
        width=made.width,
        depth=made.depth,
        state=made.state,
        stem_depth=made.stem,
        causal=made.causal,
    )
    assert not net.training
    for found, expected in zip(kernels_of(net, made.tokens), kernels, strict=True):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    x = torch.randn(2, 12, 2 * made.tokens, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = net.tokens(x)
    expected = published.forward(state, kernels, x, made.names, stem=made.stem)
    assert torch.allclose(tokens, expected, atol=1e-4)


def test_the_correction_matters(tmp_path: Path) -> None:
    """Otherwise the tests above could pass without it."""
    state, kernels = Published(length="number").build()
    for layer in range(2):
        state[_key(state, layer, ".L")] = torch.tensor(400)
    net: Any = load_backbone("ecg_cpc", weights=written(state, tmp_path), **SMALL)
    assert np.abs(kernels_of(net, 40)[0] - kernels[0]).max() > 0.1 * np.abs(kernels[0]).max()


def test_the_whole_size(tmp_path: Path) -> None:
    made = Published(width=512, depth=4, tokens=300)
    state, kernels = made.build()
    net: Any = load_backbone("ecg_cpc", weights=written(state, tmp_path))
    assert sum(p.numel() for p in net.parameters()) == entry("ecg_cpc").parameters
    for found, expected in zip(kernels_of(net, 300), kernels, strict=True):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert net.preparation.describe() == (
        "12 leads; fourier resampling to 240 Hz; window of 600 samples (4 evaluation crops)"
    )


def test_loading_draws_no_random_numbers_and_takes_the_norms_count(tmp_path: Path) -> None:
    state, _ = Published().build()
    before = torch.get_rng_state()
    net = load_backbone("ecg_cpc", weights=written(state, tmp_path), **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    loaded = net.state_dict()
    assert int(loaded["stem.2.norm.num_batches_tracked"]) == 17
    assert torch.equal(loaded["blocks.1.kernel.log_step"], state[_key(state, 1, ".log_dt")])


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    state, kernels = Published().build()
    save_file(state, tmp_path / "x.safetensors")
    net: Any = load_backbone("ecg_cpc", weights=tmp_path / "x.safetensors", **SMALL)
    assert np.abs(kernels_of(net, 40)[1] - kernels[1]).max() < 1e-5 * np.abs(kernels[1]).max()


def test_a_converted_file_needs_no_correction_any_more(tmp_path: Path) -> None:
    file = written(Published(length="none").build()[0], tmp_path)
    out = tmp_path / "model"
    about = convert_checkpoint("ecg_cpc", weights=file, out=out, corrected_tokens=40, **SMALL)
    assert about["public_weights_licence"] == "not stated in our sources"
    expected = load_backbone("ecg_cpc", weights=file, corrected_tokens=40, **SMALL).state_dict()
    found = load_backbone("ecg_cpc", weights=out, **SMALL).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


# ---------------------------------------------------------------------- how long C was made for


def test_an_unsaid_length_is_the_window_s_with_a_warning(tmp_path: Path) -> None:
    state, kernels = Published(length="none").build()
    file = written(state, tmp_path)
    with pytest.warns(AssumedLengthWarning, match="40 are taken.*corrected_tokens=1200") as told:
        net: Any = load_backbone("ecg_cpc", weights=file, window=80, **SMALL)
    assert told[0].filename == __file__
    assert np.abs(kernels_of(net, 40)[0] - kernels[0]).max() < 1e-5 * np.abs(kernels[0]).max()


def test_an_unsaid_length_can_be_given(tmp_path: Path) -> None:
    state, kernels = Published(length="none").build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net: Any = load_backbone(
            "ecg_cpc", weights=written(state, tmp_path), corrected_tokens=40, **SMALL
        )
    assert np.abs(kernels_of(net, 40)[0] - kernels[0]).max() < 1e-5 * np.abs(kernels[0]).max()


def test_a_said_length_is_not_overruled(tmp_path: Path) -> None:
    file = written(Published().build()[0], tmp_path)
    load_backbone("ecg_cpc", weights=file, corrected_tokens=40, **SMALL)
    with pytest.raises(WeightsError, match="corrected for 40 tokens, not for corrected_tokens = 3"):
        load_backbone("ecg_cpc", weights=file, corrected_tokens=30, **SMALL)
    with pytest.raises(BackboneError, match="corrected_tokens = 0"):
        create_backbone("ecg_cpc", corrected_tokens=0)


# ---------------------------------------------------------------------- refusals


def _key(state: State, layer: int, ending: str) -> str:
    (found,) = (key for key in state if key.endswith(ending) and f"s4_layers.{layer}." in key)
    return found


def _teacher(state: State) -> State:
    return state | {f"ema.{key}": tensor.clone() for key, tensor in state.items()}


def _other_frequencies(state: State) -> State:
    key = _key(state, 1, ".w")
    linear = torch.stack([torch.full((4,), -0.5), torch.pi * torch.arange(4)], -1)
    return state | {key: linear.expand_as(state[key]).clone()}


def _turned(state: State) -> State:
    key = _key(state, 0, ".B")
    return state | {key: torch.stack([-state[key][..., 1], state[key][..., 0]], -1)}


def _longer_p(state: State) -> State:
    key = _key(state, 0, ".P")
    return state | {key: 1.01 * state[key]}


def _other_q(state: State) -> State:
    key = _key(state, 0, ".P")
    return state | {key.removesuffix("P") + "Q": -state[key]}


def _uneven(state: State) -> State:
    key = _key(state, 0, ".w")
    value = state[key].clone()
    value[3] *= 1.1
    return state | {key: value}


def _two_lengths(state: State) -> State:
    return state | {_key(state, 0, ".omega").removesuffix("omega") + "L": torch.tensor(80)}


def _differing_lengths(state: State) -> State:
    longer, _ = Published(tokens=80).build()
    endings = (".omega", ".z")
    return state | {_key(state, 1, end): longer[_key(longer, 1, end)] for end in endings}


def _long_steps(state: State) -> State:
    key = _key(state, 0, ".log_dt")
    return state | {key: state[key] + 2.0}


def _renamed(state: State, old: str, new: str) -> State:
    return {new if key == old else key: tensor for key, tensor in state.items()}


def _without(state: State, ending: str) -> State:
    return {key: tensor for key, tensor in state.items() if not key.endswith(ending)}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_teacher, r"2 convolutions of shape \(width, 12, 3\).*ema\.model\.encoder\.0\.0\.weight"),
        (_other_frequencies, r"0 tensors that are the eigenvalues of HiPPO-LegS in .*s4_layers\.1"),
        (_turned, "B, P and Q .* in different bases"),
        (_longer_p, "that are not HiPPO-LegS together"),
        (_other_q, "B, P and Q .* in different bases"),
        (_uneven, r"unknown tensors beside C .*\.w"),
        (_two_lengths, "lengths of a kernel that contradict each other"),
        (_differing_lengths, "C corrected for 40, 80 tokens"),
        (_long_steps, "0 times 6 step sizes"),
        (lambda s: _without(s, "encoder.3.1.running_mean"), "4 convolutions and 3 batch norms"),
        (lambda s: _without(s, "encoder.3.1.running_var"), r"missing: .*\.3\.1\.running_var"),
        (lambda s: _without(s, "s4_layers.1.D"), "0 D of the kernel"),
        (lambda s: _without(s, "norms.1.weight"), "1 norms for 2 state-space layers"),
        (lambda s: _without(s, "s4_layers.0.output_linear.0.weight"), "0 linear maps from 6 to 12"),
        (lambda s: _without(s, "s4_layers.0.output_linear.0.bias"), "missing: .*bias"),
        (
            lambda s: s | {"model.predictor.s4_layers.0.kernel.kernel.extra": torch.ones(3)},
            "unknown tensors beside C",
        ),
        (
            lambda s: s | {"model.predictor.s4_layers.0.kernel.kernel.N": torch.tensor(8)},
            r"unknown tensors beside C .*kernel\.N",
        ),
        (
            lambda s: s | {"model.encoder.0.0.bias": torch.ones(6)},
            r"tensors in model\.encoder that have no place there: model\.encoder\.0\.0\.bias",
        ),
        (
            lambda s: s | {"model.predictor.decoder.weight": torch.ones(6, 6)},
            r"tensors in model\.predictor that have no place there",
        ),
        (
            lambda s: s | {"model.predictor.norms.2.weight": torch.ones(6)}
            | {"model.predictor.norms.2.bias": torch.ones(6)},
            "3 norms for 2 state-space layers",
        ),
        (
            lambda s: _renamed(s, "model.encoder.2.0.weight", "model.encoder.other.0.weight"),
            "convolutions of the stem whose order cannot be told",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_or_ambiguous_is_refused_by_name(
    damage: Any, said: str, tmp_path: Path
) -> None:
    file = written(damage(Published().build()[0]), tmp_path)
    with pytest.raises(WeightsError, match=said):
        load_backbone("ecg_cpc", weights=file, **SMALL)


def test_complex_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state, _ = Published(complex_tensors=True).build()
    state[_key(state, 0, ".C")][0, 2, 1] = float("nan")
    with pytest.raises(WeightsError, match="a C that holds NaN or infinity"):
        load_backbone("ecg_cpc", weights=written(state, tmp_path), **SMALL)


def test_q_is_p_or_its_conjugate(tmp_path: Path) -> None:
    state, kernels = Published().build()
    for layer in range(2):
        key = _key(state, layer, ".P")
        state[key.removesuffix("P") + "Q"] = state[key] * torch.tensor([1.0, -1.0])
    net: Any = load_backbone("ecg_cpc", weights=written(state, tmp_path), **SMALL)
    assert np.abs(kernels_of(net, 40)[0] - kernels[0]).max() < 1e-5 * np.abs(kernels[0]).max()


def test_another_shape_or_another_family_is_refused(tmp_path: Path) -> None:
    file = written(Published().build()[0], tmp_path)
    with pytest.raises(
        WeightsError, match=r"stem\.0\.weight \(6, 12, 3\) instead of \(512, 12, 3\)"
    ):
        load_backbone("ecg_cpc", weights=file)
    with pytest.raises(WeightsError, match=r"reshaped: blocks\.0\.kernel\.C \(1, 6, 4, 2\)"):
        load_backbone("ecg_cpc", weights=file, **{**SMALL, "state": 16})
    with pytest.raises(WeightsError, match="a published S4 encoder, not mtecg_tiny") as refusal:
        load_backbone("mtecg_tiny", weights=file)
    assert "ecg_cpc" in refusal.value.remedy
    with pytest.raises(WeightsError, match="has no head"):
        load_classifier("ecg_cpc", weights=file, **SMALL)


def test_public_names_are_not_made_up() -> None:
    with pytest.raises(WeightsError, match="not known"):
        to_public(create_backbone("s4_tiny", seed=0))


# ---------------------------------------------------------------------- our own files


@pytest.fixture(scope="module")
def pretrained(
    synthetic: Cohort, synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `einthoven pretrain` leaves."""
    recipe = load_pretraining(
        "s4-ptbxl-100hz-cpu", ["epochs=1", "batch_size=32", "precision='fp32'"]
    )
    out = tmp_path_factory.mktemp("pretrain") / "run"
    options = {"width": 8, "depth": 2}
    given: dict[str, Any] = {"recipe": recipe, "options": options, "processes": Processes("cpu")}
    return pretrain(synthetic, synthetic_store, "s4_small", out=out, **given).encoder


def test_an_encoder_of_ours_comes_back_as_it_was(pretrained: Path) -> None:
    net = load_backbone("s4_small", weights=pretrained, width=8, depth=2)
    loaded = net.state_dict()
    stored, about = read_tensors(pretrained)
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(loaded[key], stored[key]) for key in stored)
    assert about["backbone"] == "s4_small"
    fresh = create_backbone("s4_small", width=8, depth=2, seed=0).eval()
    fresh.load_state_dict(stored)
    x = torch.randn(1, 12, 250)
    with torch.no_grad():
        assert torch.equal(net.features(x), fresh.features(x))


def test_a_causal_encoder_is_opened_towards_the_future_without_changing_it(
    pretrained: Path,
) -> None:
    shape: dict[str, Any] = {"width": 8, "depth": 2}
    causal = load_backbone("s4_small", weights=pretrained, **shape)
    both = load_backbone("s4_small", weights=pretrained, causal=False, **shape)
    x = torch.randn(2, 12, 250)
    with torch.no_grad():
        # To rounding: a convolution in both directions is made another way.
        assert torch.allclose(both.features(x), causal.features(x), atol=1e-5)
    both.features(x).sum().backward()
    for name, parameter in both.named_parameters():
        if name.endswith(".kernel.C"):
            assert parameter.shape[0] == 2
            assert parameter.grad is not None
            assert parameter.grad[1].any()  # it can be trained


def test_a_published_encoder_is_opened_too(tmp_path: Path) -> None:
    file = written(Published().build()[0], tmp_path)
    net = load_backbone("ecg_cpc", weights=file, causal=False, **SMALL)
    kernels = [tensor for name, tensor in net.state_dict().items() if name.endswith(".kernel.C")]
    assert kernels
    assert all(len(both) == 2 and both[0].any() and not both[1].any() for both in kernels)


def test_an_encoder_of_two_directions_is_no_causal_one(tmp_path: Path) -> None:
    file = tmp_path / "both.safetensors"
    save_file(create_backbone("s4_small", width=8, causal=False).state_dict(), file)
    with pytest.raises(WeightsError, match="reshaped"):
        load_backbone("s4_small", weights=file, width=8)


def test_an_encoder_of_ours_is_told_from_another_shape(pretrained: Path) -> None:
    with pytest.raises(WeightsError, match="reshaped"):
        load_backbone("s4_small", weights=pretrained)
    with pytest.raises(WeightsError, match="einthoven's S4, not mtecg_tiny"):
        load_backbone("mtecg_tiny", weights=pretrained)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.registry import backbone_names, entry
from einthoven.errors import WeightsError
from einthoven.weights import load_backbone, load_classifier, to_public

TINY: dict[str, dict[str, Any]] = {
    "fcn_wang": {"widths": (8, 4, 4)},
    "resnet1d_wang": {"width": 4},
    "xresnet1d101": {"stem_widths": (4, 4, 4), "width": 4, "depths": (1, 2)},
    "inception1d": {"width": 4, "kernels": (9, 5, 3)},
    "lstm": {"width": 4},
    "lstm_bidir": {"width": 4},
}
# A tensor of each network's file, and where the last linear map is in it.
NAMED = {
    "fcn_wang": ("2.0.0.weight", "3.8"),
    "resnet1d_wang": ("5.0.downsample.1.running_var", "6.8"),
    "xresnet1d101": ("5.1.convs.2.0.weight", "6.8"),
    "inception1d": ("layers.0.im.5.conv_bottle.1.weight", "layers.1.8"),
    "lstm": ("2.weight_hh_l1", "5.7"),
    "lstm_bidir": ("2.weight_hh_l1_reverse", "5.7"),
}


@pytest.fixture(params=TINY)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _source(name: str, **options: Any) -> Classifier:
    """A tiny classifier whose batch norms have seen a batch."""
    net = create_classifier(name, labels=5, seed=0, **(TINY[name] | options))
    net(torch.randn(4, 12, 60, generator=torch.Generator().manual_seed(0)))
    return net.eval()


def _saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save({"model": state, "opt": {"state": {}, "param_groups": []}}, path)
    return path


def _same(net: torch.nn.Module, like: torch.nn.Module) -> bool:
    theirs = like.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("wrap", [
    lambda s: {"model": s, "opt": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}}},
    lambda s: s,
    lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
])  # fmt: skip
def test_reads_what_the_benchmark_saves(
    name: str, wrap: Callable[[Any], Any], tmp_path: Path
) -> None:
    source = _source(name)
    public = to_public(source)
    tensor, head = NAMED[name]
    assert tensor in public
    assert torch.equal(public[f"{head}.weight"], source.head.weight)
    # PyTorch 1.4, which the benchmark runs on, wrote no archives yet.
    torch.save(wrap(public), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    net = load_backbone(name, weights=tmp_path / "x.pth", **TINY[name])
    assert _same(net, source.backbone)
    classifier = load_classifier(name, weights=tmp_path / "x.pth", **TINY[name])
    x = torch.randn(2, 12, 60)
    assert torch.equal(classifier(x), source(x))


def test_reads_our_own_naming(name: str, tmp_path: Path) -> None:
    source = _source(name)
    for state in (source.state_dict(), source.backbone.state_dict()):
        save_file(state, tmp_path / "x.safetensors")
        net = load_backbone(name, weights=tmp_path / "x.safetensors", **TINY[name])
        assert _same(net, source.backbone)


def test_an_encoder_s_file_is_read_too(name: str, tmp_path: Path) -> None:
    source = _source(name)
    path = _saved(to_public(source.backbone), tmp_path / "x.pth")
    assert _same(load_backbone(name, weights=path, **TINY[name]), source.backbone)
    with pytest.raises(WeightsError, match="has no head"):
        load_classifier(name, weights=path, **TINY[name])


def test_can_be_saved_without_shared_memory(tmp_path: Path) -> None:
    """An xresnet's file has its convolutions twice; safetensors wants every tensor once."""
    public = to_public(_source("xresnet1d101"))
    save_file(public, tmp_path / "x.safetensors")
    twice = [key for key in public if ".convpath." in key]
    assert len(twice) == 3 * 3 * 6
    assert all(
        torch.equal(public[key], public[key.replace("convpath.0", "convs")]) for key in twice
    )


def test_one_tensor_under_two_names_is_one_tensor(tmp_path: Path) -> None:
    public = to_public(_source("xresnet1d101"))
    public["5.0.convpath.0.1.0.weight"] += 1
    with pytest.raises(WeightsError, match=r"5\.0\.convpath\.0\.1\.0\.weight is not the same as"):
        load_backbone("xresnet1d101", weights=_saved(public, tmp_path / "x.pth"))


def test_a_standardiser_of_the_file_s_own(tmp_path: Path) -> None:
    path = _saved(to_public(_source("fcn_wang")), tmp_path / "x.pth")
    net = load_classifier("fcn_wang", weights=path, standardiser=(-0.001, 0.24), **TINY["fcn_wang"])
    assert str(net.preparation.steps[-1]) == "minus -0.001 mV, over 0.24 mV"


def test_lists_missing_unexpected_and_reshaped_in_the_names_of_the_file(
    name: str, tmp_path: Path
) -> None:
    public = to_public(_source(name))
    linear = f"{NAMED[name][1][:-1]}{int(NAMED[name][1][-1]) - 4}"
    bias = public.pop(f"{linear}.bias")
    public[f"{linear}.biases"] = bias
    with pytest.raises(WeightsError) as refusal:
        load_backbone(name, weights=_saved(public, tmp_path / "x.pth"), **TINY[name])
    assert f"1 missing: {linear}.bias; 1 unexpected: {linear}.biases" in refusal.value.problem
    public = to_public(_source(name))
    public[f"{linear}.bias"] = torch.ones(3)
    with pytest.raises(WeightsError, match=rf"1 reshaped: {linear}\.bias \(3,\) instead of"):
        load_backbone(name, weights=_saved(public, tmp_path / "x.pth"), **TINY[name])


@pytest.mark.parametrize("other", ["fcn_wang", "xresnet1d50", "lstm_bidir"])
def test_the_network_that_a_file_is_of_is_named(other: str, tmp_path: Path) -> None:
    path = _saved(to_public(create_classifier(other, labels=2, seed=0)), tmp_path / "x.pth")
    for wrong in ("xresnet1d101", "lstm", "inception1d"):
        with pytest.raises(WeightsError) as refusal:
            load_backbone(wrong, weights=path)
        assert refusal.value.remedy == f"load it as {other}, which it fits."
    own = tmp_path / "x.safetensors"
    save_file(create_classifier(other, labels=2, seed=0).state_dict(), own)
    with pytest.raises(WeightsError, match="does not fit inception1d") as refusal:
        load_backbone("inception1d", weights=own)
    assert refusal.value.remedy == f"load it as {other}, which it fits."


def test_other_families_are_named(name: str, tmp_path: Path) -> None:
    path = _saved(to_public(_source(name)), tmp_path / "x.pth")
    title = "an xresnet1d" if name.startswith("xresnet") else name
    said = f"a checkpoint of {title} of the PTB-XL benchmark, not mtecg_tiny"
    with pytest.raises(WeightsError, match=said) as refusal:
        load_backbone("mtecg_tiny", weights=path)
    family = [each for each in backbone_names() if entry(each).family == "strodthoff"]
    assert refusal.value.remedy == f"load it as {' or '.join(family)}."
    save_file(_source(name).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="einthoven's form of the PTB-XL benchmark's networks"):
        load_backbone("mtecg_tiny", weights=tmp_path / "x.safetensors")
    other = to_public(create_classifier("mtecg_tiny", labels=2, seed=0, depth=1))
    with pytest.raises(WeightsError, match=f"MTECG or another image ViT, not {name}"):
        load_backbone(name, weights=_saved(other, tmp_path / "y.pth"))


def test_names_with_something_in_front_are_refused(tmp_path: Path) -> None:
    public = {f"learner.{k}": v for k, v in to_public(_source("fcn_wang")).items()}
    with pytest.raises(WeightsError, match=r"learner\.0\.0\.0\.weight: .* nothing in front"):
        load_backbone("fcn_wang", weights=_saved(public, tmp_path / "x.pth"))

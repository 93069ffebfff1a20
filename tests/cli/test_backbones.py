"""The catalogue of backbones, and conversion of public checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.backbones.registry import backbone_names, catalogue, create_backbone, entry
from einthoven.licences import Licence
from einthoven.models import read_config
from einthoven.weights import load_backbone


def test_json_is_the_registry_and_the_input_of_each_network(cli: Any) -> None:
    entries = json.loads(cli("backbones", "--json").out)
    assert list(entries) == backbone_names()
    for name, fields in entries.items():
        registered = entry(name)
        assert fields["parameters"] == registered.parameters
        assert fields["weights_sha256"] == registered.weights_sha256
        assert fields["licence"] == (str(registered.licence) if registered.licence else None)
    fields, preparation = entries["st_mem_base"], create_backbone("st_mem_tiny").preparation
    assert tuple(fields["leads"]) == preparation.leads
    assert (fields["rate_hz"], fields["window_samples"], fields["window_seconds"]) == (250, 2250, 9)
    assert fields["preparation"] == [str(step) for step in preparation.steps]
    assert json.loads(cli("backbones", "ecg_fm", "--json").out) == entries["ecg_fm"]


def test_the_list_has_two_groups_and_fits_a_terminal(cli: Any) -> None:
    lines = cli("backbones").out.splitlines()
    assert max(map(len, lines)) <= 80
    places = {line.split()[0]: i for i, line in enumerate(lines) if line.strip()}
    second = lines.index("") + 1
    for name in backbone_names():
        registered = entry(name)
        is_public = not registered.recipe and registered.weights_from is not None
        mark = {True: "!", False: "", None: "?"}[registered.contains_ptbxl]
        place = places[name + ("*" + mark) * is_public]
        assert f" {registered.parameters:,}  " in lines[place]
        assert lines[place].endswith(registered.origin)
        assert (place < second) == (not registered.is_supervised)
    assert {"ecg_fm*!", "hubert_ecg_base*?", "ecgfounder_12lead*", "s4_small"} <= places.keys()


def test_the_included_model_has_an_entry(cli: Any) -> None:
    fields = json.loads(cli("backbones", "einthoven-small", "--json").out)
    assert fields["name"] == "einthoven-small"
    assert fields["contains_ptbxl"] is True
    assert "all-71" in fields["pretraining_data"]
    assert fields["options"]["causal"] is False
    assert fields["parameters"] == 367_872
    assert "CC-BY-4.0" in fields["licence"]
    assert len(fields["preparation"]) > len(create_backbone("s4_small").preparation.steps)


def test_one_entry_in_full(cli: Any) -> None:
    text = cli("backbones", "ecg_fm").out
    registered = entry("ecg_fm")
    for value in (registered.paper, registered.weights_sha256, registered.weights_from):
        assert str(value) in text
    assert json.loads(cli("backbones", "ecg_fm", "--json").out)["contains_ptbxl"] is True
    assert " 1,090,825,421 bytes" in text
    assert "width=768" in text
    assert "strodthoff-rnn" in cli("backbones", "lstm").out
    result = cli("backbones", "ecg_cp", status=1)
    assert "ecg_cpc" in result.err


def test_options_change_the_entry(cli: Any) -> None:
    text = cli("backbones", "ecgfounder_12lead", "--option", "preparation=evaluation").out
    assert 'preparation="evaluation"' in text
    assert "notch" not in text
    assert "notch" in cli("backbones", "ecgfounder_12lead").out
    cli("backbones", "--option", "window=500", status=1)


# ---------------------------------------------------------------------- convert-weights


@pytest.fixture
def public(tmp_path: Path, tiny_backbone: str) -> Path:
    """A public checkpoint of the tests' network."""
    return checkpoint(create_backbone(tiny_backbone, seed=0), tmp_path / "x.pth")


def checkpoint(network: torch.nn.Module, file: Path) -> Path:
    torch.save({"model": network.state_dict()}, file)
    return file


def test_convert_writes_a_model_folder(
    cli: Any, public: Path, tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = replace(catalogue()[tiny_backbone], licence=Licence("CC-BY-NC-4.0", "", False))
    monkeypatch.setitem(catalogue(), tiny_backbone, bound)
    monkeypatch.setattr(bound.network, "reader", "einthoven.weights.load:_OWN")
    folder = tmp_path / "encoder"
    result = cli("convert-weights", tiny_backbone, public, folder)
    assert str(folder) in result.out
    assert "CC-BY-NC-4.0" in result.out
    assert read_config(folder)["commercial_use"] is False
    assert (folder / "README.md").is_file()
    x = torch.randn(1, 12, 250)
    first = load_backbone(tiny_backbone, weights=public)
    assert torch.equal(first(x), load_backbone(tiny_backbone, weights=folder)(x))
    again = cli("convert-weights", tiny_backbone, public, folder, status=1)
    assert str(folder) in again.err


def test_convert_takes_fields_of_the_config(cli: Any, tmp_path: Path, tiny_backbone: str) -> None:
    options = {"depth": 2, "global_pool": "mean", "leads": ("I", "II")}
    network = create_backbone(tiny_backbone, seed=0, **options)
    public = checkpoint(network, tmp_path / "x.pth")
    assignments = ["--option", "depth=2", "--option", "global_pool=mean"]
    assignments += ["--option", 'leads=["I", "II"]']
    cli("convert-weights", tiny_backbone, public, tmp_path / "encoder", *assignments)
    again = load_backbone(tiny_backbone, weights=tmp_path / "encoder", **options)
    x = torch.randn(1, 2, 250)
    assert torch.equal(again(x), network.eval()(x))


@pytest.mark.parametrize(
    ("assignments", "value"),
    [
        (["widht=6"], "width"),
        (["width=wide"], "wide"),
        (["causal=True"], "boolean"),
        (["width"], "--option"),
        (["name=other"], "window"),
        (["seed=3"], "window"),
        (["strict=false"], "window"),
        (["width=6", "width=8"], "width"),
    ],
)
def test_wrong_options_are_refused(
    cli: Any, public: Path, tmp_path: Path, assignments: list[str], value: str
) -> None:
    words = [word for text in assignments for word in ("--option", text)]
    result = cli("convert-weights", "ecg_cpc", public, tmp_path / "x", *words, status=1)
    assert value in result.err
    assert not (tmp_path / "x").exists()


def test_convert_refuses_a_pickle_that_would_run(
    cli: Any, tmp_path: Path, tiny_backbone: str
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "trace",)

    torch.save({"model": Evil()}, tmp_path / "x.pth")
    result = cli("convert-weights", tiny_backbone, tmp_path / "x.pth", tmp_path / "out", status=1)
    assert result.remedies == 1
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()


FULL = [
    *(
        "stage1.solver=adamw",
        "stage1.epochs=1",
        "stage1.batch_size=4",
        "stage2.epochs=1",
        "stage2.batch_size=4",
    ),
    *("data.fraction=0.03", "data.augmentation=none", "stage1.base_lr_sweep=[]"),
]


@pytest.mark.slow
def test_ecg_fm_at_full_size(cli: Any, synthetic_path: Path, tmp_path: Path) -> None:
    """Convert, one step of the probe, one of fine-tuning, and evaluation."""
    encoder, public = tmp_path / "model", tmp_path / "public.pt"
    torch.save({"args": None, "model": create_backbone("ecg_fm", seed=0).state_dict()}, public)
    cli("convert-weights", "ecg_fm", public, encoder)
    arguments: list[Any] = ["--backbone", "ecg_fm", "--weights", encoder, "--resamples", 0]
    arguments += [word for key in FULL for word in ("--set", key)] + ["--min-records", 8]
    run = tmp_path / "run"
    cli("posttrain", synthetic_path, "--out", run, *arguments, "--device", "cpu")
    for stage in ("stage1", "stage2"):
        line = json.loads(next((run / stage).rglob("metrics.jsonl")).read_text().splitlines()[0])
        assert math.isfinite(line["train_loss"])
    assert (run / "model" / "config.json").is_file()

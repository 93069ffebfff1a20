from __future__ import annotations

import json
import math
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from public_names import to_public

from einthoven.backbones.registry import catalogue, create_backbone
from einthoven.licences import Licence
from einthoven.weights import load_backbone


@pytest.fixture
def public(tmp_path: Path, tiny_backbone: str) -> Path:
    """A public checkpoint of the tests' own network."""
    torch.save({"model": to_public(create_backbone(tiny_backbone, seed=0))}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_convert_writes_a_file_that_posttrain_reads(
    cli: Any, public: Path, tmp_path: Path, tiny_backbone: str
) -> None:
    out = tmp_path / "model"
    said = cli("convert", tiny_backbone, public, out)
    assert said.status == 0
    assert f"Written: {out}" in said.out
    assert "SHA-256 of x.pth" in said.out
    x = torch.randn(1, 12, 250)
    first = load_backbone(tiny_backbone, weights=public)
    assert torch.equal(first(x), load_backbone(tiny_backbone, weights=out)(x))
    again = cli("convert", tiny_backbone, public, out)
    assert again.status == 1
    assert "exists already" in again.err


def test_convert_writes_a_folder_that_posttrain_reads(
    cli: Any, public: Path, tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = replace(catalogue()[tiny_backbone], licence=Licence("CC-BY-NC-4.0", "", False))
    monkeypatch.setitem(catalogue(), tiny_backbone, bound)
    folder = tmp_path / "encoder"
    said = cli("convert", tiny_backbone, public, folder)
    assert said.status == 0
    assert "Not for commercial use, nor is anything that is trained from them." in said.out
    assert (folder / "README.md").is_file()
    x = torch.randn(1, 12, 250)
    first = load_backbone(tiny_backbone, weights=public)
    assert torch.equal(first(x), load_backbone(tiny_backbone, weights=folder)(x))


def test_convert_takes_fields_of_the_config(cli: Any, tmp_path: Path, tiny_backbone: str) -> None:
    options = {"depth": 2, "global_pool": "mean", "leads": ("I", "II")}
    network = create_backbone(tiny_backbone, seed=0, **options)
    torch.save({"model": to_public(network)}, tmp_path / "x.pth")
    typed = ["--option", "depth=2", "--option", "global_pool=mean"]
    typed += ["--option", 'leads=["I", "II"]']
    said = cli("convert", tiny_backbone, tmp_path / "x.pth", tmp_path / "encoder", *typed)
    assert said.status == 0, said.err
    about = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert about["backbone_options"] == json.loads(json.dumps(options))
    again = load_backbone(tiny_backbone, weights=tmp_path / "encoder", **options)
    x = torch.randn(1, 2, 250)
    assert torch.equal(again(x), network.eval()(x))


@pytest.mark.filterwarnings("always::einthoven.weights.s4.AssumedLengthWarning")
def test_convert_warns_of_what_a_checkpoint_does_not_say_until_it_is_said(
    cli: Any, tmp_path: Path
) -> None:
    """For how many tokens the C of a published S4 encoder is corrected."""
    made = runpy.run_path(str(Path(__file__).parents[1] / "weights" / "published_s4.py"))
    torch.save({"state_dict": made["Published"](length="none").build()[0]}, tmp_path / "x.ckpt")
    typed = [word for key in ("width=6", "depth=2") for word in ("--option", key)]
    said = cli("convert", "ecg_cpc", tmp_path / "x.ckpt", tmp_path / "assumed", *typed)
    assert said.status == 0, said.err
    assert "Warning: the file does not say for how many tokens its C is corrected" in said.err
    typed += ["--option", "corrected_tokens=40"]
    said = cli("convert", "ecg_cpc", tmp_path / "x.ckpt", tmp_path / "said", *typed)
    assert (said.status, said.err) == (0, "")


@pytest.mark.parametrize(
    ("typed", "problem", "remedy"),
    [
        ("widht=6", "unknown option widht of ecg_cpc", "did you mean width"),
        ("width=wide", "width = 'wide' of ecg_cpc", "give a whole number"),
        ("causal=True", "causal = 'True' of ecg_cpc", "give true or false"),
        ("width", "--option 'width' is no assignment", "write --option missing_leads=zero"),
        ("name=other", "unknown option name of ecg_cpc", "Choose among rate, window"),
        ("seed=3", "unknown option seed of ecg_cpc", "Choose among rate, window"),
        ("strict=false", "unknown option strict of ecg_cpc", "Choose among rate, window"),
    ],
)
def test_options_that_are_none_are_refused_with_what_there_is(
    cli: Any, public: Path, tmp_path: Path, typed: str, problem: str, remedy: str
) -> None:
    said = cli("convert", "ecg_cpc", public, tmp_path / "x", "--option", typed)
    assert said.status == 1
    assert problem in said.err
    assert remedy in said.err
    assert not (tmp_path / "x").exists()


def test_a_field_is_given_once(cli: Any, public: Path, tmp_path: Path) -> None:
    twice = ["--option", "width=6", "--option", "width=8"]
    said = cli("convert", "ecg_cpc", public, tmp_path / "x", *twice)
    assert "--option width is given twice" in said.err


def test_convert_refuses_a_pickle_that_would_run(
    cli: Any, tmp_path: Path, tiny_backbone: str
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "trace",)

    torch.save({"model": Evil()}, tmp_path / "x.pth")
    said = cli("convert", tiny_backbone, tmp_path / "x.pth", tmp_path / "out")
    assert said.status == 1
    assert "could run code" in said.err
    assert "do not open it with any other loader" in said.err
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()


SHORT = ["stage2.epochs=1", "stage1.epochs=1", "data.crop_seconds=2.5", "stage2.batch_size=8"]


@pytest.mark.filterwarnings("always::einthoven.stages.leakage.LeakageWarning")
def test_posttrain_says_that_public_weights_have_seen_ptbxl(
    cli: Any,
    public: Path,
    ptbxl_60: Path,
    tmp_path: Path,
    tiny_backbone: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = replace(
        catalogue()[tiny_backbone],
        contains_ptbxl=True,
        pretraining_data="a corpus with PTB-XL",
        licence=Licence("MIT", "", True),
    )
    monkeypatch.setitem(catalogue(), tiny_backbone, known)
    arguments: list[Any] = ["--backbone", tiny_backbone, "--weights", public, "--resamples", 0]
    arguments += [word for key in SHORT for word in ("--set", key)]
    # The five test records of this excerpt have no label that could be scored: more of them.
    cohort = tmp_path / "ptb-xl"
    shutil.copytree(ptbxl_60, cohort)
    table = pd.read_csv(cohort / "ptbxl_database.csv")
    table["strat_fold"] = table["strat_fold"].replace({7: 10, 8: 10})
    table.to_csv(cohort / "ptbxl_database.csv", index=False)
    said = cli("posttrain", cohort, "--out", tmp_path / "run", *arguments, "--device", "cpu")
    assert said.status == 0, said.err
    warning = "were pretrained on data that include PTB-XL"
    assert warning in " ".join(said.err.split())
    asked = json.loads((tmp_path / "run" / "run.json").read_text())["request"]
    assert warning in asked["public_weights"]["warning"]
    assert asked["public_weights"]["cohort"] == "ptb-xl"
    about = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert about["public_weights"] == asked["public_weights"]


FULL = [
    *("stage1.epochs=1", "stage1.batch_size=4", "stage2.epochs=1", "stage2.batch_size=4"),
    *("data.fraction=0.03", "data.augmentation=none", "stage1.base_lr_sweep=[]"),
]


@pytest.mark.slow
def test_ecg_fm_at_full_size(cli: Any, synthetic_path: Path, tmp_path: Path) -> None:
    """Convert, one step of the probe, one of fine-tuning, and the evidence."""
    weights, encoder = tmp_path / "public.pt", tmp_path / "model"
    torch.save({"args": None, "model": to_public(create_backbone("ecg_fm", seed=0))}, weights)
    assert cli("convert", "ecg_fm", weights, encoder).status == 0
    arguments: list[Any] = ["--backbone", "ecg_fm", "--weights", encoder, "--resamples", 0]
    arguments += [word for key in FULL for word in ("--set", key)] + ["--min-records", 8]
    run = tmp_path / "run"
    said = cli("posttrain", synthetic_path, "--out", run, *arguments, "--device", "cpu")
    assert said.status == 0, said.err
    for stage in ("stage1", "stage2"):
        entry = json.loads(next((run / stage).rglob("metrics.jsonl")).read_text().splitlines()[0])
        assert math.isfinite(entry["train_loss"])
    assert (run / "model" / "config.json").is_file()

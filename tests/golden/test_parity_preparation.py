"""Preparations of public networks against what their own code makes of the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from einthoven.backbones.registry import create_backbone
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_batch

TINY: dict[str, dict[str, Any]] = {
    "hubert_ecg_small": {"depth": 1, "width": 16, "heads": 2, "conv_width": 8, "pos_groups": 4},
    "ecgfounder_12lead": {"stem_width": 16, "widths": (16,), "depths": (1,)},
    "ecgfounder_1lead": {"stem_width": 16, "widths": (16,), "depths": (1,)},
    "ecg_fm": {
        "width": 16, "depth": 1, "heads": 2, "conv_width": 8, "pos_kernel": 4, "pos_groups": 2,
    },
}  # fmt: skip
SCRIPT = {"preparation": "evaluation"}


def _preparation(name: str, **options: Any) -> Preparation:
    return create_backbone(name, seed=0, **TINY[name], **options).preparation


def _close(result: NDArray[np.float32], golden: NDArray[np.float32]) -> None:
    assert result.shape == golden.shape
    assert np.abs(result - golden).max() <= 1e-5 * np.abs(golden).max()


def _prepared(preparation: Preparation, raw: Any, rate: int, *starts: int) -> NDArray[np.float32]:
    """Crops of one record, from the store's whole microvolts."""
    batch = torch.from_numpy(raw).expand(len(starts), -1, -1)
    out = prepare_batch(preparation, batch, rate=rate, starts=torch.tensor(starts), unit="uV")
    return out.numpy()


@pytest.mark.parametrize("rate", [500, 100])
def test_hubert_ecg(shared: Path, rate: int) -> None:
    with np.load(shared / "parity" / "preprocess_hubert_ecg.npz") as golden:
        result = _prepared(_preparation("hubert_ecg_small"), golden[f"raw{rate}_uV"], rate, 0)
        _close(result.reshape(6000), golden[f"model_input_from_{rate}"])


@pytest.mark.parametrize(
    ("name", "options", "rate", "stored"),
    [
        ("ecgfounder_12lead", {}, 500, "finetune_500"),
        ("ecgfounder_12lead", {}, 100, "filtered_after_linear_resampling_from_100"),
        ("ecgfounder_1lead", {}, 500, "finetune_lead1_500"),
        ("ecgfounder_12lead", SCRIPT, 500, "evaluation_500"),
        ("ecgfounder_12lead", SCRIPT, 100, "evaluation_from_100"),
    ],
)
def test_ecgfounder(
    shared: Path, name: str, options: dict[str, Any], rate: int, stored: str
) -> None:
    preparation = _preparation(name, **options)
    with np.load(shared / "parity" / "preprocess_ecgfounder.npz") as golden:
        raw = golden[f"raw{rate}_uV"][: len(preparation.leads)]
        _close(_prepared(preparation, raw, rate, 0)[0], golden[stored])


def test_ecg_fm(shared: Path) -> None:
    preparation = _preparation("ecg_fm")
    with np.load(shared / "parity" / "preprocess_ecg_fm.npz") as golden:
        _close(_prepared(preparation, golden["raw500_uV"], 500, 0, 2500), golden["segments_500"])
        result = _prepared(preparation, golden["raw100_uV"], 100, 0)[0]
        _close(result, golden["first_segment_100"])


@pytest.mark.parametrize("name", ["hubert_ecg_small", "ecgfounder_12lead", "ecg_fm"])
def test_leads_that_were_left_out_are_computed(shared: Path, name: str) -> None:
    """Eight leads give the same as twelve, to the microvolt of the records' rounding."""
    eight = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    whole, few = _preparation(name), _preparation(name, leads=eight)
    with np.load(shared / "parity" / "preprocess_ecg_fm.npz") as golden:
        raw = golden["raw500_uV"].astype(np.float32)
    one, two = raw[0], raw[1]
    raw[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    rows = [whole.leads.index(lead) for lead in few.sources]
    _close(_prepared(few, raw[rows], 500, 0), _prepared(whole, raw, 500, 0))

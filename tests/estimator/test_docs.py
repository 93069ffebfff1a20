"""The examples of docs/python.md run as they stand, on a small network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.backbones.registry import create_backbone
from einthoven.files import write_tensors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_the_page(arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimators, folders = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    network = create_backbone("s4_tiny", seed=0)
    for name in ("st_mem_vit_base_encoder.pth", "model"):
        write_tensors(tmp_path / name, network.state_dict(), {"backbone": "s4_tiny"})
    count = 60
    np.save("ecgs.npy", arrays.x[:count])
    given: dict[str, Any] = {
        "afib": np.arange(count) % 2,
        "patients": arrays.patients[:count],
        "Y": arrays.y[:count],
        "X_test": arrays.x[count:][:5],
        "model": network,
    }
    code = estimators.replace("st_mem_base", "s4_tiny").replace("rate=500", "rate=100")
    exec(compile(code, str(PAGE), "exec"), given)
    assert given["features"].shape == (count, network.feature_dim)
    assert given["probe"].predict_proba(given["X_test"]).shape == (5, arrays.y.shape[1])
    given["model"] = network
    exec(compile(folders, str(PAGE), "exec"), given)
    assert given["model"].name == "s4_tiny"
    assert given["model"] is not network

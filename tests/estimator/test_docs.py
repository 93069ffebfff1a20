"""The example of docs/python.md runs as it stands, on a small network."""

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
def test_the_example_of_the_page(
    arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    network = create_backbone("s4_tiny", seed=0)
    write_tensors(tmp_path / "st_mem_vit_base_encoder.pth", network.state_dict(), {})
    count = 60
    np.save("ecgs.npy", arrays.x[:count])
    names: dict[str, Any] = {
        "afib": np.arange(count) % 2,
        "patients": arrays.patients[:count],
        "Y": arrays.y[:count],
        "X_test": arrays.x[count:][:5],
    }
    code = code.replace("st_mem_base", "s4_tiny").replace("rate=500", "rate=100")
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["features"].shape == (count, network.feature_dim)
    assert names["probe"].predict_proba(names["X_test"]).shape == (5, arrays.y.shape[1])
    assert names["probe"].to_model().name == "s4_tiny"

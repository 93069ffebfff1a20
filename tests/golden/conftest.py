"""Reading the parity fixtures: golden outputs of the reference implementations at full size."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from reference_names import renamed_key
from torch import Tensor

from einthoven.backbones.classifier import Classifier, create_classifier


@dataclass(frozen=True)
class Parity:
    """One fixture: its description, its golden arrays and the rule that makes its weights."""

    meta: dict[str, Any]
    golden: dict[str, np.ndarray]
    rule: ModuleType

    def weights(self) -> dict[str, Tensor]:
        """The reference's state dict, checked bit for bit."""
        made = self.rule.formula_state_dict(
            self.meta["keys"],
            self.meta["seed"],
            self.meta["aliases"],
            skip=self.meta["kept_as_computed"],
            scale=self.meta["scale"],
        )
        return {key: torch.from_numpy(value) for key, value in made.items()}

    def x(self) -> Tensor:
        """The input, checked bit for bit."""
        about = self.meta["inputs"]["x"]
        seed = re.fullmatch(r"formula_input\(shape, (\d+)\)", about["rule"])
        assert seed is not None
        array = self.rule.formula_input(about["shape"], int(seed[1]))
        assert self.rule.checksum(array) == about["crc32"]
        return torch.from_numpy(array)

    def stored(self, name: str) -> Tensor:
        """A stored input."""
        return torch.from_numpy(self.golden[name])

    def number_after(self, words: str) -> float:
        """The number that follows some words in the notes."""
        notes = " ".join(self.meta["notes"])
        found = re.search(re.escape(words) + r" (\d+(?:\.\d+)?(?:e-?\d+)?)", notes)
        assert found is not None, words
        return float(found[1])

    def check(self, **outputs: Tensor) -> None:
        """Compare outputs by name, each to its own tolerance."""
        for name, ours in outputs.items():
            golden = self.golden.get(name, self.golden.get(f"out_{name}"))
            assert golden is not None, name
            value = ours.detach().numpy()
            assert value.shape == golden.shape, name
            about = self.meta["outputs"][name]
            if golden.dtype.kind in "ui":
                assert np.array_equal(value, golden), name
                continue
            error = np.abs(value - golden).max() / np.abs(golden).max()
            assert error <= about["tolerance"], (name, error)


@pytest.fixture(scope="session")
def parity(shared: Path) -> Callable[[str], Parity]:
    """Open a fixture by name."""
    folder = shared / "parity"
    spec = importlib.util.spec_from_file_location("parity_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)

    def read(name: str) -> Parity:
        meta = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            return Parity(meta=meta, golden=dict(arrays), rule=rule)

    return read


@pytest.fixture(scope="session")
def load_named() -> Callable[[str, str, dict[str, Tensor]], Classifier]:
    """A classifier with the tensors of a reference implementation, renamed by a table."""

    def load(table: str, name: str, state: dict[str, Tensor]) -> Classifier:
        renamed = {renamed_key(table, key): tensor for key, tensor in state.items()}
        net = create_classifier(name, labels=len(renamed["head.weight"]))
        expected = net.state_dict()
        ours = {key: tensor for key, tensor in renamed.items() if not key.startswith("unused.")}
        # Only axes of length one differ: lines or images, filters of one channel or one sample.
        shaped = {key: tensor.reshape(expected[key].shape) for key, tensor in ours.items()}
        net.load_state_dict(shaped)
        return net.eval()

    return load

"""Checkpoints: whole or not at all, with what a module keeps beside its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from einthoven.training.checkpoint import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)


class Noted(nn.Linear):
    """A layer that remembers state that is not a tensor."""

    def __init__(self, note: Any) -> None:
        super().__init__(2, 1)
        self.note = note

    def get_extra_state(self) -> Any:
        return self.note

    def set_extra_state(self, state: Any) -> None:
        self.note = state


def optimiser(model: nn.Module) -> torch.optim.AdamW:
    chosen = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    chosen.step()
    return chosen


@pytest.mark.parametrize("note", [{"steps": 3, "names": ["a"]}, torch.tensor([1.5, 2.5])])
def test_extra_state_is_saved(tmp_path: Path, note: Any) -> None:
    model = Noted(note)
    save_checkpoint(tmp_path / "c.safetensors", model, optimiser(model), {"epoch": 2})
    save_weights(tmp_path / "w.safetensors", model)
    again, other = Noted(None), Noted(None)
    if isinstance(note, Tensor):  # it is then a tensor of the state dict, with a shape
        again.note, other.note = torch.zeros(2), torch.zeros(2)
    counters = load_checkpoint(tmp_path / "c.safetensors", again, optimiser(again))
    load_weights(tmp_path / "w.safetensors", other)
    assert counters == {"epoch": 2}
    for read in (again, other):
        assert torch.equal(read.weight, model.weight)
        assert str(read.note) == str(note)


def test_kill_while_writing_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.safetensors"
    model = nn.Linear(2, 1)
    chosen = optimiser(model)
    save_checkpoint(file, model, chosen, {"epoch": 1})
    before = file.read_bytes()

    def half(tensors: Any, name: str, metadata: Any) -> None:
        Path(name).write_bytes(before[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(file, model, chosen, {"epoch": 2})
    assert file.read_bytes() == before
    assert load_checkpoint(file, model, chosen) == {"epoch": 1}
    save_checkpoint(file, model, chosen, {"epoch": 2})
    assert load_checkpoint(file, model, chosen) == {"epoch": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL

from einthoven.backbones.registry import create_backbone
from einthoven.errors import RecipeError
from einthoven.objectives.ecg_fm import WCR, create_ecg_fm, create_wav2vec2
from einthoven.objectives.objective import SteppedObjective

TINY = SMALL["ecg_fm"]
SMALL: dict[str, Any] = {"codes": 8, "target_width": 16, "negatives": 10}


def _backbone(**options: Any) -> Any:
    return create_backbone("ecg_fm", seed=0, **(TINY | options))


def _wcr(**options: Any) -> WCR:
    torch.manual_seed(0)
    return create_ecg_fm(_backbone(), **(SMALL | options))


def test_targets_are_of_what_was_hidden_and_see_nothing_else() -> None:
    """The targets do not depend on the mask's vector; the contexts do not see hidden tokens."""
    model = create_wav2vec2(_backbone(), **SMALL).eval()
    x = torch.randn(2, 12, 640)
    mask = torch.zeros(2, 40, dtype=torch.bool)
    mask[:, 10:20] = True
    choices = torch.randint(9, (2, 10, 5))
    before = model.compare(x, mask=mask, choices=choices)
    with torch.no_grad():
        model.mask_vector += 1.0
    after = model.compare(x, mask=mask, choices=choices)
    assert torch.equal(before.codes, after.codes)
    assert not torch.allclose(before.logits, after.logits, atol=1e-3)
    # What replaces a hidden token is the vector, whatever the token was.
    seen: list[torch.Tensor] = []
    model.backbone.pos_conv.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.compare(x, mask=mask, choices=choices)
    assert torch.equal(seen[0][mask], model.mask_vector.expand(20, -1))
    assert not torch.equal(seen[0][~mask], model.mask_vector.expand(60, -1))


def test_the_quantiser_cools_by_optimiser_steps() -> None:
    model = _wcr(code_temperature=[2.0, 0.5, 0.5])
    assert isinstance(model, SteppedObjective)
    temperatures = []
    for step in range(4):
        temperatures.append(model._code_temperature())
        model.after_step(step + 1)
    assert temperatures == [2.0, 1.0, 0.5, 0.5]
    again = _wcr()
    again.load_state_dict(model.state_dict())
    assert int(again.steps) == 4  # a resumed run goes on where it was


def test_a_short_window_is_refused() -> None:
    with pytest.raises(RecipeError, match="mask_length = 10"):
        _wcr()(torch.randn(2, 12, 320))

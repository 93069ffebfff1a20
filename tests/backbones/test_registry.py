from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from einthoven.backbones import backbone_names, create_backbone, entry
from einthoven.backbones.registry import register_backbone
from einthoven.errors import BackboneError


def test_no_network_is_imported_before_the_catalogue_is_used() -> None:
    code = "import sys, einthoven.backbones; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", backbone_names())
def test_entries_are_complete(name: str) -> None:
    registered = entry(name)
    assert registered.summary
    assert registered.paper
    assert 0 < len(registered.origin) <= 24
    public = (registered.weights_from, registered.licence, registered.pretraining_data)
    assert all(public) or public == (None, None, None)
    assert registered.weights_from or registered.contains_ptbxl is None
    assert not registered.contains_ptbxl or "PTB-XL" in (registered.pretraining_data or "")
    assert not registered.weights_from or registered.reader
    assert re.fullmatch(r"([0-9a-f]{64})?", registered.weights_sha256)


def test_a_name_belongs_to_one_backbone() -> None:
    register_backbone(entry("s4"))
    with pytest.raises(BackboneError, match="'s4'") as refused:
        register_backbone(replace(entry("s4"), summary="another"))
    assert refused.value.remedy is not None


def test_unknown_names_and_overrides_are_answered_with_what_exists() -> None:
    with pytest.raises(BackboneError, match="mtecg_tiny"):
        create_backbone("mtecg_tny")
    with pytest.raises(BackboneError, match="einthoven backbones") as refused:
        entry("zzz")
    assert "st_mem_base" not in str(refused.value)
    with pytest.raises(BackboneError, match=r"dept [\s\S]*depth"):
        create_backbone("mtecg_tiny", dept=3)
    with pytest.raises(BackboneError, match="init = 'best'"):
        create_backbone("mtecg_tiny", init="best")


def test_seed_decides_the_weights_and_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    first = create_backbone("mtecg_tiny_100hz", seed=5, depth=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    second = create_backbone("mtecg_tiny_100hz", seed=5, depth=1).state_dict()
    other = create_backbone("mtecg_tiny_100hz", seed=6, depth=1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["pos_embed"], other["pos_embed"])

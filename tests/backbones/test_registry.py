from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from einthoven.backbones import backbone_names, create_backbone, entry
from einthoven.backbones.peers import PEERS
from einthoven.errors import BackboneError


def test_the_catalogue_is_read_without_torch() -> None:
    code = "import sys, einthoven.backbones; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", backbone_names())
def test_entries_state_the_parameters(name: str) -> None:
    with torch.device("meta"):
        net = create_backbone(name)
    assert sum(p.numel() for p in net.parameters()) == entry(name).parameters
    assert net.name == name
    assert net.family == entry(name).family


@pytest.mark.parametrize("name", backbone_names())
def test_entries_are_complete(name: str) -> None:
    about = entry(name)
    texts = (about.summary, about.paper, about.weights_licence, about.weights_from)
    assert all(texts)
    assert about.pretraining_data
    assert 0 < len(about.origin) <= 24
    assert bool(about.recipe) == (name in PEERS)
    # Unknown or not, what the public weights saw of PTB-XL is never left unsaid.
    assert about.contains_ptbxl is False or "PTB-XL" in about.pretraining_data
    assert re.fullmatch(r"([0-9a-f]{64})?", about.weights_sha256)


def test_unknown_names_and_overrides_are_answered_with_what_exists() -> None:
    with pytest.raises(BackboneError, match=r"did you mean mtecg_tiny"):
        create_backbone("mtecg_tny")
    with pytest.raises(BackboneError, match="st_mem_base"):
        entry("zzz")
    with pytest.raises(BackboneError, match=r"unknown option dept[\s\S]*depth"):
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

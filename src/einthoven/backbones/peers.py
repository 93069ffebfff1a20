"""The catalogue of task-specific networks, which post-training has to beat."""

from __future__ import annotations

from einthoven.backbones.entries import Entry

__all__ = ["PEERS"]

PEERS: dict[str, Entry] = {}
"""Trained from random weights; nobody publishes any."""

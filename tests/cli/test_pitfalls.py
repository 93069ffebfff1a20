"""`einthoven reproduce pitfalls` as a user types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from einthoven.reproduce.pitfalls import features, selection
from einthoven.signals.store import Store


def test_a_page_with_every_pitfall(
    cli: Any,
    made: Any,
    synthetic_path: Path,
    synthetic_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "DILATIONS", (1, 4))
    monkeypatch.setattr(selection, "EPOCHS", 12)
    page = tmp_path / "protocol.md"
    said = cli(
        "reproduce", "pitfalls", "--cohort", synthetic_path, "--store", synthetic_store.root,
        "--model", made.run, "--write", page, "--device", "cpu", "--threads", 1,
    )  # fmt: skip
    assert said.status == 0, said.err
    assert f"Page: {page}" in said.out
    text = page.read_text()
    assert "reproduce:pitfalls backbone=pt experiment=protocol begin" in text
    assert "Records split at random instead of by `strat_fold`" in text
    assert str(tmp_path) not in text


def test_what_is_not_ptb_xl_is_refused(cli: Any, tmp_path: Path) -> None:
    said = cli("reproduce", "pitfalls", "--cohort", tmp_path)
    assert said.status == 1
    assert "is not PTB-XL's folder" in said.err
    said = cli("reproduce", "pitfalls")
    assert said.status == 1
    assert "no --cohort" in said.err

"""The demo: one marked table of all arms, and paired differences to the same reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from einthoven.cli import main
from einthoven.cli.demo import RECIPES
from einthoven.files import read_json
from einthoven.report.format import with_interval
from einthoven.stages import recipe as recipes


@pytest.mark.slow
def test_the_demo_compares_all_arms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = recipes.load_recipe

    def short(name: str, overrides: Any) -> recipes.Recipe:
        settings = load(name, overrides)
        stages = {stage: getattr(settings, stage) for stage in ("stage1", "stage2")}
        changes = {n: s.model_copy(update={"epochs": 1}) for n, s in stages.items() if s}
        return settings.model_copy(update=changes)

    monkeypatch.setattr(recipes, "load_recipe", short)
    with pytest.raises(SystemExit) as done:
        main(["demo", str(tmp_path), "--records", "200"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("SIMULATED")
    assert max(map(len, printed.split("Report:")[0].splitlines())) <= 80
    report = read_json(tmp_path / "report.json")
    assert {run["name"] for run in report["runs"]} == set(RECIPES)
    for key in ("auroc", "auprc"):
        for run in report["runs"]:
            score = run["score"]
            limits = score[f"macro_{key}_interval"]
            assert with_interval(score[f"macro_{key}"], limits) in printed
        for pair in report["comparisons"]:
            assert pair["reference"] == "fine-tuning"
            gain = pair[key]
            assert with_interval(gain["macro"], gain["macro_interval"], signed=True) in printed
    assert "SIMULATED" in (tmp_path / "report.html").read_text()

"""Bundles that the rows of table 1 are held against."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.errors import ModelError, ReproduceError
from einthoven.files import read_json, write_json
from einthoven.models import update_config
from einthoven.predictions import Predictions
from einthoven.reproduce.bundles import predict_bundles, predicted_folder
from einthoven.reproduce.contenders import best_contender, check_contenders
from einthoven.reproduce.experiments import OURS, SCRATCH
from einthoven.reproduce.folders import Request
from einthoven.reproduce.grid import Cell
from einthoven.reproduce.write import write

BACKBONE = "mtecg_tiny_100hz"


def run_of(request: Request, arm: str, task: str = "all-71") -> Path:
    return request.run_folder(Cell(BACKBONE, arm, task, 1.0, 0))


@pytest.fixture
def held(rows: Request, tmp_path: Path) -> Request:
    """One run of a row, against the bundle of a post-trained run, moved elsewhere."""
    bundle = tmp_path / "given"
    shutil.copytree(run_of(rows, OURS) / "model", bundle)
    request = replace(rows, out=tmp_path / "out", against=(bundle,))
    shutil.copytree(run_of(rows, SCRATCH), run_of(request, SCRATCH))
    return request


def test_a_bundle_is_the_run_that_it_is_of(held: Request, rows: Request) -> None:
    said: list[tuple[str, int, int]] = []
    (folder,) = predict_bundles(held, lambda *words: said.append(words))
    assert {what for what, _, _ in said} == {"predict validation", "predict test"}
    for split in ("validation", "test"):
        mine, theirs = (
            Predictions.load(place / "predictions" / f"{split}.parquet")
            for place in (folder, run_of(rows, OURS))
        )
        assert mine.records.tolist() == theirs.records.tolist()
        assert np.array_equal(mine.probabilities, theirs.probabilities)
    best = best_contender(held, "all-71")
    assert best is not None
    own = read_json(run_of(rows, OURS) / "metrics.json")
    assert best.validation == own["validation"]["macro_auroc"]
    asked = read_json(run_of(rows, OURS) / "run.json")["request"]
    assert best.to_dict() == {
        "bundle": "given", "backbone": BACKBONE, "recipe": "post-training", "seeds": [0],
        "validation_auroc": best.validation, "weights_sha256": asked["weights"]["sha256"],
    }  # fmt: skip
    said.clear()
    assert predict_bundles(held, lambda *words: said.append(words)) == [folder]
    assert not said
    asked = read_json(folder / "run.json")
    asked["request"]["cohort_digest"] = "of another cohort"
    write_json(folder / "run.json", asked)
    assert predict_bundles(held, lambda *words: said.append(words)) == [folder]
    assert said


def test_the_page_has_its_lead(held: Request, rows: Request, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write(held, "table-1", page)
    found = read_json(tmp_path / "figures" / "table-1--rows.json")
    lead = found["rows"][0]["tasks"]["all-71"]["post_trained_minus_this"]["auroc"]
    macro = {
        arm: read_json(run_of(rows, arm) / "metrics.json")["test"]["macro_auroc"]
        for arm in (OURS, SCRATCH)
    }
    assert lead["mean"] == pytest.approx(macro[OURS] - macro[SCRATCH], abs=1e-12)
    cost = found["best_post_trained_on"]["all-71"]["cost"]
    assert cost["seconds"] is None
    assert cost["parameters"] == read_json(run_of(rows, OURS) / "metrics.json")["parameters"]
    flat = " ".join(page.read_text().split())
    assert "all-71 the bundle `given`, `post-training` of" in flat
    assert not list(held.out.glob("report*"))


def test_two_bundles_of_one_recipe_are_two_models(held: Request, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(held.against[0], other)
    update_config(other, aggregate="logit")
    both = replace(held, against=(*held.against, other))
    assert len(set(predict_bundles(both))) == 2
    check_contenders(both)


def test_what_is_no_bundle_of_a_task_is_refused_early(held: Request, tmp_path: Path) -> None:
    own = replace(held, experiment=held.experiment.model_copy(update={"tasks": ("superclass-5",)}))
    with pytest.raises(ReproduceError, match="a bundle of the task all-71"):
        check_contenders(own)
    (held.against[0] / "config.json").write_text("damaged")
    with pytest.raises(ModelError, match="is damaged"):
        check_contenders(held)
    assert not (held.out / "against").exists()


def test_a_folder_is_named_by_what_decides_a_prediction(held: Request) -> None:
    before = predicted_folder(held, held.against[0])
    update_config(held.against[0], licence="another")
    assert predicted_folder(held, held.against[0]) == before
    update_config(held.against[0], aggregate="logit")
    assert predicted_folder(held, held.against[0]) != before

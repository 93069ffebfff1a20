"""The commands that explain, on a small simulated cohort."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.models import Model, save_model

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    network = create_classifier("resnet1d_wang", labels=("A", "B"), seed=0, width=8).eval()
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(Model(network, network.preparation), folder)
    return str(folder)


def test_explain_similar_and_map(
    model: str,
    synthetic: Cohort,
    synthetic_path: Path,
    tmp_path: Path,
    cli: Cli,
) -> None:
    pytest.importorskip("captum")
    file, cohort = str(synthetic.paths()[0].with_suffix(".hea")), str(synthetic_path)
    embeddings = str(tmp_path / "e.parquet")
    cli("embed", cohort, "--model", model, "--out", embeddings)

    near = ["--cohort", cohort, "--embeddings", embeddings]
    found = json.loads(cli("similar", model, file, *near, "--count", 3, "--json").out)["similar"]
    assert len(found) == 3
    distances = [row["distance"] for row in found]
    assert distances == sorted(distances)
    same = set(synthetic.ids()[synthetic.patients() == synthetic.patients()[0]].tolist())
    assert not {row["record"] for row in found} & same
    place = synthetic.ids().tolist().index(found[0]["record"])
    labels = dict(zip(synthetic.labels, synthetic.matrix[place], strict=True))
    assert set(found[0]["labels"]) >= {label for label in synthetic.labels if labels[label]}

    page = tmp_path / "page.html"
    cli("explain", model, file, "--label", "B", "--out", page, *near)
    data = json.loads(page.with_suffix(".json").read_text())
    assert data["prediction"]["label"] == "B"
    assert data["similar"][:3] == found

    drawn = ["--projection", "pca", "--records", "10", "--cohort", cohort]
    for name in ("map.html", "map.svg"):
        cli("map", embeddings, *drawn, "--out", tmp_path / name)
        assert "sex" in (tmp_path / name).read_text()
    cli("map", embeddings, *drawn[:4], "--out", tmp_path / "plain.svg")  # without a cohort


def test_similar_records_of_a_table_of_other_targets(
    synthetic: Cohort, tmp_path: Path, cli: Cli
) -> None:
    paths = [path.with_suffix(".hea") for path in synthetic.paths()[:6]]
    lines = [f"{path},p{i},{40 + i},word {i}" for i, path in enumerate(paths)]
    table = tmp_path / "numbers.csv"
    table.write_text("\n".join(["path,patient,lvef,comment", *lines]))
    embeddings, shown = str(tmp_path / "e.parquet"), []
    for target in ("lvef", "qt"):
        task = {"kind": "regression", "target": target, "mean": [0.0], "scale": [1.0]}
        network = create_classifier("resnet1d_wang", labels=(target,), seed=0, width=8).eval()
        model = tmp_path / target
        save_model(Model(network, network.preparation, config={"task": task}), model)
        if target == "lvef":
            cli("embed", table, "--model", model, "--out", embeddings)
        near = ["--cohort", table, "--embeddings", embeddings, "--json"]
        found = json.loads(cli("similar", model, paths[0], *near).out)["similar"]
        shown.append({row["record"]: row["labels"] for row in found})
    numbers, nothing = shown
    assert numbers == {str(path): [f"lvef {40 + i}"] for i, path in enumerate(paths) if i}
    assert nothing == {record: [] for record in numbers}


def test_a_table_with_text_and_some_labels_of_the_model(
    model: str, synthetic: Cohort, tmp_path: Path, cli: Cli
) -> None:
    paths = [path.with_suffix(".hea") for path in synthetic.paths()[:6]]
    table, embeddings = tmp_path / "text.csv", str(tmp_path / "e.parquet")
    lines = [f"{path},p{i},ward {i % 2},{i % 2}" for i, path in enumerate(paths)]
    table.write_text("\n".join(["path,patient,ward,B", *lines]))
    cli("embed", table, "--model", model, "--out", embeddings)
    near = ["--cohort", table, "--embeddings", embeddings, "--json"]
    found = json.loads(cli("similar", model, paths[0], *near).out)["similar"]
    shown = {row["record"]: row["labels"] for row in found}
    assert shown == {str(path): ["B"] * (i % 2) for i, path in enumerate(paths) if i}
    out = tmp_path / "map.html"
    cli("map", embeddings, "--cohort", table, "--label", "B", "--projection", "pca", "--out", out)
    assert out.is_file()


def test_embeddings_of_another_model_are_refused(
    model: str, synthetic: Cohort, synthetic_path: Path, tmp_path: Path, cli: Cli
) -> None:
    file, other = synthetic.paths()[0].with_suffix(".hea"), tmp_path / "e.parquet"
    cli("embed", file, "--out", other)
    arguments = ["--cohort", synthetic_path, "--embeddings", other]
    assert cli("similar", model, file, *arguments, status=1).remedies == 1

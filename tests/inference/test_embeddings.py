"""Embeddings in files are what the backbone gives, record by record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import EinthovenError, EvaluationError, RecordError
from einthoven.inference import (
    Embedder,
    embed_cohort,
    embed_files,
    embedding_files,
    read_embeddings,
)
from einthoven.models import Model
from einthoven.records import read_record
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import prepare_record
from einthoven.signals.steps import Scale, Standardise
from einthoven.signals.store import Store

CROPS, TOKENS, WIDTH = 3, 50, 32


@pytest.fixture(scope="module")
def model() -> Model:
    classifier = create_classifier(
        "mtecg_tiny_100hz", labels=2, seed=5, depth=1, width=WIDTH, heads=1
    ).eval()
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(CROPS)
    steps = tuple(Standardise() if isinstance(s, Scale) else s for s in preparation.steps)
    config = {"weights_sha256": "ab"}
    return Model(classifier, replace(preparation, steps=steps), config=config)


def expected(model: Model, path: Path, level: str) -> np.ndarray:
    """The same embedding, without batches, stores or files."""
    record, backbone = read_record(path), model.classifier.backbone
    with torch.no_grad():
        if level == "token":
            return backbone.tokens(prepare_record(model.preparation, record)).flatten(0, 1).numpy()
        if level == "pooled":
            return backbone.features(prepare_record(model.preparation, record)).mean(0).numpy()
        rows = []
        for lead in STANDARD_LEADS:
            crops = prepare_record(replace(model.preparation, leads=(lead,)), record)
            rows.append(backbone.features(crops, leads=(lead,)).mean(0))
        return torch.stack(rows).numpy()


@pytest.mark.parametrize(
    ("level", "shape"),
    [("pooled", (WIDTH,)), ("token", (CROPS * TOKENS, WIDTH)), ("lead", (12, WIDTH))],
)
def test_a_cohort_as_an_array(
    model: Model, synthetic: Cohort, synthetic_store: Store, tmp_path: Path, level: str,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    steps: list[tuple[Any, ...]] = []
    done = embed_cohort(
        model, synthetic, synthetic_store, tmp_path / "x.npy", level=level, split="test",
        batch_size=7, progress=lambda *step: steps.append(step),
    )  # fmt: skip
    ids = synthetic.ids("test").tolist()
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert array.shape == done.shape == (len(ids), *shape)
    assert array.dtype == np.float32
    sidecar = json.loads((tmp_path / "x.json").read_text())
    assert sidecar["records"] == ids
    assert sidecar["patients"] == synthetic.patients("test").tolist()
    assert sidecar["shape"] == list(done.shape)
    assert (sidecar["level"], sidecar["weights_sha256"]) == (level, "ab")
    assert steps[-1] == ("embed", len(ids), len(ids))
    for row in (0, 9, len(ids) - 1):
        one = expected(model, synthetic.paths("test")[row], level)
        assert array[row] == pytest.approx(one, abs=2e-4)  # the store holds whole microvolts
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.json", "x.npy"]


@pytest.mark.parametrize("level", ["pooled", "token", "lead"])
def test_files_as_a_table(
    model: Model, synthetic: Cohort, tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_files, "ROW_GROUP", 2 * WIDTH * 4)
    files = synthetic.paths("test")[:5]
    done = embed_files(model, files, tmp_path / "sub" / "x.parquet", level=level)
    table = pq.read_table(done.file)
    assert table.column_names[:2] == ["record", "patient"]
    assert table["record"].to_pylist() == [str(file) for file in files]
    assert pq.ParquetFile(done.file).num_row_groups == (3 if level == "pooled" else 5)
    metadata = json.loads(table.schema.metadata[b"einthoven.embeddings"])
    assert (metadata["level"], metadata["files"]) == (level, 5)
    one = expected(model, files[3], level)
    if level == "pooled":
        assert table.column_names[2:] == [f"e{i:04d}" for i in range(WIDTH)]
        row = [table[name][3].as_py() for name in table.column_names[2:]]
    elif level == "lead":
        assert table.column_names[2:] == list(STANDARD_LEADS)
        row = [table[lead][3].as_py() for lead in STANDARD_LEADS]
    else:
        row = table["tokens"][3].as_py()
    assert np.array(row) == pytest.approx(one, abs=1e-6)


def test_both_formats_and_any_batch_size_agree(
    model: Model, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    embed_cohort(model, synthetic, synthetic_store, tmp_path / "x.npy", batch_size=64)
    embed_cohort(model, synthetic, synthetic_store, tmp_path / "x.parquet", batch_size=11)
    array, frame = np.load(tmp_path / "x.npy"), pq.read_table(tmp_path / "x.parquet").to_pandas()
    assert frame["record"].tolist() == synthetic.ids().tolist()
    assert frame.iloc[:, 2:].to_numpy() == pytest.approx(array, abs=1e-5)


def test_the_vector_of_a_lead_depends_on_that_lead_alone(
    model: Model, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = synthetic.paths("test")[0]
    record = read_record(file)
    changed = record.signal.copy()
    changed[1:] = changed[1:][:, ::-1] * 3
    other = replace(record, signal=changed)
    monkeypatch.setattr("einthoven.inference.embeddings.read_excerpt", lambda path: path)
    monkeypatch.setattr("einthoven.inference.embeddings.records_of", lambda path: [path])
    for name, source in (("one", record), ("two", other)):
        embed_files(model, [source], tmp_path / f"{name}.npy", level="lead")  # type: ignore[list-item]
    one, two = (np.load(tmp_path / f"{name}.npy")[0] for name in ("one", "two"))
    assert np.array_equal(one[0], two[0])
    assert not np.isclose(one[1:], two[1:], atol=1e-3).all(axis=1).any()


def test_records_of_other_lengths(model: Model, synthetic: Cohort, tmp_path: Path) -> None:
    """Their tokens fit a table, not an array; a mean over crops fits both."""
    overlapping = replace(model, preparation=model.preparation.with_evaluation_crops(4))
    record = read_record(synthetic.paths("test")[0])
    short = replace(record, signal=np.ascontiguousarray(record.signal[:, :252]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("einthoven.inference.embeddings.read_excerpt", lambda path: path)
        patch.setattr("einthoven.inference.embeddings.records_of", lambda path: [path])
        both: Any = [record, short]
        done = embed_files(overlapping, both, tmp_path / "x.parquet", level="token")
        lengths = [len(row) for row in pq.read_table(done.file)["tokens"].to_pylist()]
        assert lengths == [4 * TOKENS, 3 * TOKENS]
        with pytest.raises(EvaluationError, match="150 tokens"):
            embed_files(overlapping, both, tmp_path / "x.npy", level="token")
        assert embed_files(overlapping, both, tmp_path / "y.npy").shape == (2, WIDTH)
    assert not (tmp_path / "x.npy").exists()


def test_an_unusable_file_is_reported_or_raises(
    model: Model, synthetic: Cohort, tmp_path: Path
) -> None:
    good = synthetic.paths("test")[:2]
    files = [good[0], tmp_path / "absent.hea", good[1]]
    refused: list[tuple[Path, EinthovenError]] = []
    done = embed_files(
        model, files, tmp_path / "x.npy", refused=lambda *fault: refused.append(fault)
    )
    assert done.shape == (2, WIDTH)
    assert [path for path, _ in refused] == [tmp_path / "absent.hea"]
    before = (tmp_path / "x.npy").read_bytes(), (tmp_path / "x.json").read_bytes()
    with pytest.raises(RecordError, match=r"absent\.hea"):
        embed_files(model, files, tmp_path / "x.npy")
    assert before == ((tmp_path / "x.npy").read_bytes(), (tmp_path / "x.json").read_bytes())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.json", "x.npy"]


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_an_interrupted_file_never_appears(
    model: Model, synthetic: Cohort, synthetic_store: Store, tmp_path: Path, suffix: str
) -> None:
    def stop(task: str, done: int, total: int, metrics: Any = None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_cohort(model, synthetic, synthetic_store, tmp_path / f"x.{suffix}", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_invalid_requests_are_refused(
    model: Model, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    cohort = synthetic, synthetic_store
    with pytest.raises(EvaluationError, match=r"level.*'word'"):
        embed_cohort(model, *cohort, tmp_path / "x.npy", level="word")
    with pytest.raises(EvaluationError, match=r"x\.csv.*'\.csv'"):
        embed_cohort(model, *cohort, tmp_path / "x.csv")
    rest = synthetic.select((synthetic.table["split"] != "test").to_numpy())
    with pytest.raises(EvaluationError) as caught:
        embed_cohort(model, rest, synthetic_store, tmp_path / "x.npy", split="test")
    assert "split" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["e.parquet", "e.npy"])
def test_pooled_embeddings_are_read_again(
    model: Model, synthetic: Cohort, tmp_path: Path, name: str
) -> None:
    files = [path.with_suffix(".hea") for path in synthetic.paths()[:2]]
    embed_files(model, files, tmp_path / name)
    known = read_embeddings(tmp_path / name)
    assert known.records.tolist() == list(map(str, files))
    assert known.metadata["weights_sha256"] == "ab"
    assert known.vectors.dtype == np.float32
    one = Embedder(model, "pooled", precision="fp32", device="cpu").embed(read_record(files[1]))
    assert known.vectors[1] == pytest.approx(one, abs=1e-6)


def test_other_files_are_no_embeddings(model: Model, synthetic: Cohort, tmp_path: Path) -> None:
    file = synthetic.paths()[0].with_suffix(".hea")
    embed_files(model, [file], tmp_path / "tokens.parquet", level="token")
    (tmp_path / "text.parquet").write_text("record")
    for name in ("tokens.parquet", "text.parquet", "none.parquet"):
        with pytest.raises(EvaluationError, match=name):
            read_embeddings(tmp_path / name)

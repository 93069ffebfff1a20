"""Predictions of arrays, records, tables and folders."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import einthoven
from einthoven.cohorts import Cohort
from einthoven.errors import EvaluationError, RecordError
from einthoven.inference import predict_record, tables, write_predictions
from einthoven.models import Model
from einthoven.predictions import Predictions
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.wfdb import write_wfdb

ARRAY: dict[str, Any] = {"rate": 500, "leads": STANDARD_LEADS, "unit": "uV"}


@pytest.fixture(scope="module")
def model() -> Model:
    return einthoven.load_model()


def probabilities(frame: pd.DataFrame) -> Any:
    return frame.filter(like="probability:").to_numpy()


def test_every_kind_of_source_gives_the_same_row(model: Model, synthetic: Cohort) -> None:
    paths = synthetic.paths("test")[:3]
    records = [read_record(path) for path in paths]
    expected = [list(predict_record(model, record).probabilities.values()) for record in records]
    microvolts = np.stack([1000 * record.signal for record in records])
    options = ARRAY | {"rate": records[0].rate}
    for source, extra in [
        (records, {}),
        (paths, {}),
        (pd.DataFrame({"path": map(str, paths), "note": "x"}), {}),
        (microvolts, options),
        ([microvolts[0], microvolts[1], microvolts[2]], options),
    ]:
        frame = model.predict(source, batch_size=2, device="cpu", **extra)
        assert probabilities(frame) == pytest.approx(np.array(expected), abs=1e-5)
    assert probabilities(model.predict(microvolts[0], **options)).shape == (1, len(model.labels))
    assert len(einthoven.predict(records[0])) == len(einthoven.predict(str(paths[0]))) == 1


def test_all_records_of_an_array_and_bytes(model: Model, synthetic: Cohort, tmp_path: Path) -> None:
    first, second = (read_record(path) for path in synthetic.paths("test")[:2])
    stated = {"rate": first.rate, "unit": "mV", "leads": np.array(first.leads)}
    np.savez(tmp_path / "two.npz", ecgs=np.stack([first.signal, second.signal]), **stated)
    np.savez(tmp_path / "one.npz", ecg=second.signal, **stated)
    frame = einthoven.predict(tmp_path / "two.npz", model)
    assert [Path(name).name for name in frame.index] == ["two.npz::0", "two.npz::1"]
    expected = probabilities(einthoven.predict([first, second], model))
    assert probabilities(frame) == pytest.approx(expected, abs=1e-5)
    content = (tmp_path / "one.npz").read_bytes()
    of_bytes = einthoven.predict([content, second], model)
    assert probabilities(of_bytes) == pytest.approx(expected[[1, 1]], abs=1e-5)
    assert len(einthoven.predict(content, model)) == 1
    with pytest.raises(EvaluationError) as caught:
        einthoven.predict(io.BytesIO(content), model)
    assert "read()" in caught.value.remedy


def test_calls_and_quality(model: Model, synthetic: Cohort) -> None:
    record = read_record(synthetic.paths("test")[0])
    signal = record.signal.copy()
    signal[4] = 0.2
    doubtful = Record.create(signal, record.rate, leads=record.leads, name="b", patient="p")
    frame = einthoven.predict([record, doubtful], model)
    above = predict_record(model, record).above_threshold
    calls = frame.filter(like="call:").iloc[0]
    assert {name.removeprefix("call:") for name in calls.index[calls]} == set(above or ())
    assert ["aVL" in quality for quality in frame["quality"]] == [False, True]
    assert frame.loc["b", "patient"] == "p"


def test_a_label_that_is_not_answered_has_neither_probability_nor_call(
    model: Model, synthetic: Cohort
) -> None:
    record = read_record(synthetic.paths("test")[0])
    leads = ["I", "II", "V1", "V5"]
    prediction = predict_record(model, record, leads=leads)
    answered = [label for label in model.labels if label not in prediction.without_call]
    assert 0 < len(answered) < len(model.labels)
    row = einthoven.predict([record], model, lead_subset=leads).iloc[0]
    for kind in ("probability:", "call:"):
        assert [x for x in model.labels if pd.notna(row[kind + x])] == answered
    assert "V2, V3, V4, V6" in row["quality"]
    chosen = einthoven.predict([record], model, lead_subset=["I"])
    assert chosen.filter(like="probability:").notna().all(axis=None)
    assert chosen.filter(like="call:").isna().all(axis=None)


def test_a_refused_record_keeps_its_row(model: Model, synthetic: Cohort) -> None:
    record = read_record(synthetic.paths("test")[0])
    arrays = [record.signal, 1000 * record.signal, record.signal.T]
    frame = einthoven.predict(arrays, model, rate=record.rate, leads=record.leads)
    assert np.isnan(probabilities(frame)).all(axis=1).tolist() == [False, True, True]
    assert "uV" in frame["refused"].iloc[1]
    assert frame.filter(like="call:").iloc[1].isna().all()
    with pytest.raises(EvaluationError, match="uV"):
        einthoven.predict(arrays[1:2], model, rate=record.rate, leads=record.leads)
    with pytest.raises(EvaluationError, match="rate"):
        einthoven.predict(arrays, model)
    with pytest.raises(EvaluationError) as caught:
        einthoven.predict([], model)
    assert "files" in caught.value.remedy


def test_an_interrupted_file_resumes(
    model: Model, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, reads = synthetic.paths("test")[:7], []

    def read(path: Path) -> Record:
        reads.append(path)
        if stop and len(reads) == 4:
            raise KeyboardInterrupt
        return read_record(path)

    monkeypatch.setattr(tables, "read_excerpt", read)
    out, stop = tmp_path / "p.csv", True
    with pytest.raises(KeyboardInterrupt):
        write_predictions(paths, out, model, batch_size=2)
    assert not out.exists()
    stop = False
    reads.clear()
    assert write_predictions(paths, out, model, batch_size=2).predicted == 7
    assert reads == paths[2:]
    whole = tmp_path / "whole.parquet"
    write_predictions(paths, whole, model, batch_size=2)
    loaded = Predictions.load(out)
    assert loaded.records.tolist() == [str(path) for path in paths]
    np.testing.assert_array_equal(loaded.probabilities, Predictions.load(whole).probabilities)
    requests = [".p.csv.request.json", ".whole.parquet.request.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*requests, "p.csv", "whole.parquet"]


def test_an_interrupted_table_resumes(model: Model, synthetic: Cohort, tmp_path: Path) -> None:
    """The call that fails keeps the batches before; only the others are computed again."""
    table, out, whole = (tmp_path / name for name in ("ecgs.csv", "p.csv", "whole.csv"))
    pd.DataFrame({"path": synthetic.paths("test")[:6]}).to_csv(table, index=False)
    steps: list[int] = []

    def progress(task: str, completed: int, *_: Any) -> None:
        steps.append(completed)
        if stop and completed == 4:
            raise RuntimeError

    stop = True
    with pytest.raises(RuntimeError):
        write_predictions(table, out, model, batch_size=2, progress=progress)
    assert not out.exists()
    stop = False
    write_predictions(table, out, model, batch_size=2, progress=progress)
    assert steps == [2, 4, 4, 6]
    write_predictions(table, whole, model, batch_size=2)
    assert len(pd.read_csv(out)) == 6
    assert out.read_bytes() == whole.read_bytes()


def test_a_parquet_file_has_a_digest(model: Model, synthetic: Cohort, tmp_path: Path) -> None:
    paths, out = synthetic.paths("test")[:5], tmp_path / "p.parquet"
    write_predictions(paths, out, model, batch_size=2)
    loaded = Predictions.load(out)
    assert loaded.is_verified
    assert len(loaded) == 5
    written = pq.read_table(out)
    place = written.column_names.index(f"probability:{model.labels[0]}")
    values = written[place].to_numpy()[::-1]
    changed = written.set_column(place, written.column_names[place], pa.array(values))
    pq.write_table(changed, out)
    with pytest.raises(EvaluationError, match="digest"):
        Predictions.load(out)
    # A table that `Predictions` does not take has none.
    write_predictions([paths[0], paths[0]], tmp_path / "twice.parquet", model)
    assert len(pd.read_parquet(tmp_path / "twice.parquet")) == 2


def test_a_changed_file_is_predicted_again(
    model: Model, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *others = (read_record(path) for path in synthetic.paths("test")[:5])
    files = [tmp_path / f"ecgs/{number}" for number in range(4)]
    for file, record in zip(files, (first, second, *others), strict=False):
        write_wfdb(file, record.signal, rate=record.rate, leads=record.leads)
    reads: list[Path] = []

    def read(path: Path) -> Record:
        reads.append(path)
        return read_record(path)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "read_excerpt", read)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_join", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_predictions(files, tmp_path / "p.csv", model, batch_size=2)
    write_wfdb(files[3], -first.signal, rate=first.rate, leads=first.leads)
    reads.clear()
    write_predictions(files, tmp_path / "p.csv", model, batch_size=2)
    assert reads == files[2:]
    expected = predict_record(model, read_record(files[3])).probabilities
    written = pd.read_csv(tmp_path / "p.csv").filter(like="probability:").iloc[3]
    assert written.to_numpy() == pytest.approx(list(expected.values()), abs=1e-5)


def test_a_damaged_part_is_predicted_again(
    model: Model, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, reads, out = synthetic.paths("test")[:7], [], tmp_path / "p.csv"

    def read(path: Path) -> Record:
        reads.append(path)
        return read_record(path)

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "read_excerpt", read)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_join", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_predictions(paths, out, model, batch_size=1)
    parts = sorted((tmp_path / ".p.csv.parts").iterdir())
    parts[0].write_bytes(b"")
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    changed = pq.read_table(parts[2]).to_pandas()
    changed[changed.filter(like="probability:").columns] = 0.5
    changed.to_parquet(parts[2], index=False)
    metadata = pq.read_schema(parts[3]).metadata  # the digest survives, the values do not
    row = pq.read_table(parts[4]).to_pandas()
    pq.write_table(
        pa.Table.from_pandas(row, preserve_index=False).replace_schema_metadata(metadata), parts[3]
    )
    parts[5].write_bytes(parts[4].read_bytes())  # a sound part in another's place
    reads.clear()
    write_predictions(paths, out, model, batch_size=1)
    assert reads == [*paths[:4], paths[5]]
    whole = tmp_path / "whole.csv"
    write_predictions(paths, whole, model, batch_size=1)
    assert out.read_bytes() == whole.read_bytes()


def test_another_request_does_not_resume(
    model: Model, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = synthetic.paths("test")[:3]

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tables, "_join", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_predictions(paths, tmp_path / "p.csv", model)
    leads = ["I", "II", "V1", "V5"]
    write_predictions(paths, tmp_path / "p.csv", model, lead_subset=leads)
    frame = pd.read_csv(tmp_path / "p.csv")
    assert frame["quality"].str.contains("V2").all()


def test_all_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"absent\.hea"):
        write_predictions(["absent.hea"], tmp_path / "p.csv", model)
    assert [path.name for path in tmp_path.iterdir()] == ["p.refused.csv"]
    with pytest.raises(RecordError):
        predict_record(model, read_record("absent.hea"))


def test_a_file_holds_answers_by_one_measurement_of_accuracy(
    model: Model, synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches, the second after the accuracy without the missing leads was measured again."""
    paths, reads = synthetic.paths("test")[:4], []

    def read(path: Path) -> Record:
        reads.append(path)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return read_record(path)

    monkeypatch.setattr(tables, "read_excerpt", read)
    options: dict[str, Any] = {"batch_size": 2, "lead_subset": ["I", "II", "V1", "V5"]}
    out = tmp_path / "p.csv"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(paths, out, model, **options)
    unmeasured = replace(model, config=model.config | {"lead_accuracy": None})
    write_predictions(paths, out, unmeasured, **options)
    calls = pd.read_csv(out).filter(like="call:")
    assert calls.shape == (4, len(model.labels))
    assert calls.isna().all(axis=None)


def test_a_finished_file_of_another_request_is_not_replaced(
    model: Model, synthetic: Cohort, tmp_path: Path
) -> None:
    paths, out = synthetic.paths("test")[:2], tmp_path / "p.csv"
    write_predictions(paths, out, model)
    before = out.read_bytes()
    leads = ["I", "II", "V1", "V5"]
    for source, options in ((paths, {"lead_subset": leads}), (paths[:1], {})):
        with pytest.raises(EvaluationError, match=re.escape(str(out))):
            write_predictions(source, out, model, **options)
    assert out.read_bytes() == before
    assert write_predictions(paths, out, model, batch_size=1).predicted == 2
    foreign = tmp_path / "labels.csv"
    foreign.write_text("path\n")
    with pytest.raises(EvaluationError):
        write_predictions(paths, foreign, model)


def test_a_mixed_folder_is_predicted_with_the_leads_that_each_file_has(
    model: Model, synthetic: Cohort, tmp_path: Path
) -> None:
    """Record names are those of a table beside the folder, and no patient is invented."""
    folder = tmp_path / "mixed"
    records = [read_record(path) for path in synthetic.paths("test")[:3]]
    some = ("I", "II", "V1", "V5")
    for name, record, leads in zip("abc", records, (STANDARD_LEADS, some, ("I",)), strict=True):
        chosen = record.select(leads)
        write_wfdb(folder / name, chosen.signal, rate=chosen.rate, leads=leads)
    frame = einthoven.predict(folder, model)
    assert frame.index.tolist() == ["a.hea", "b.hea", "c.hea"]
    assert set(frame["patient"]) == {""}
    expected = [
        list(predict_record(model, read_record(folder / name), leads=leads).probabilities.values())
        for name, leads in (("a", None), ("b", some))
    ]
    assert probabilities(frame)[:2] == pytest.approx(np.array(expected), abs=1e-5, nan_ok=True)
    assert ["V2" in text for text in frame["quality"]] == [False, True, False]
    table = pd.DataFrame({"path": ["a.hea", "b.hea", "c.hea"]})
    again = einthoven.predict(table, model, root=folder)
    pd.testing.assert_frame_equal(again, frame)
    result = write_predictions(folder, tmp_path / "p.csv", model)
    assert (result.predicted, result.refused) == (2, 1)
    refused = pd.read_csv(result.refused_file)
    assert "--leads I " in refused["remedy"][0]
    with pytest.raises(EvaluationError) as caught:
        einthoven.predict([folder / "c"], model)
    assert caught.value.remedy == refused["remedy"][0]

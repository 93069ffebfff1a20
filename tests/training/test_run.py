from __future__ import annotations

from pathlib import Path

import pytest

from einthoven.errors import TrainingError
from einthoven.files import locked
from einthoven.training.distributed import Processes
from einthoven.training.run import LOCK, RunFolder, open_run

ASKED = {"recipe": {"name": "a", "seed": 0}, "weights": {"path": "/x/w", "sha256": "12"}}


def test_same_request_resumes_with_moved_weights(tmp_path: Path) -> None:
    RunFolder.begin(tmp_path / "run", ASKED)
    moved = ASKED | {"weights": {"path": "../x/w", "sha256": "12"}}
    run = RunFolder.begin(tmp_path / "run", moved)
    assert run.request == ASKED
    assert "torch" in run.environment


@pytest.mark.parametrize(
    ("key", "value"),
    [("recipe", {"name": "a", "seed": 1}), ("weights", {"path": "/x/w", "sha256": "34"})],
)
def test_another_request_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    RunFolder.begin(tmp_path / "run", ASKED)
    with pytest.raises(TrainingError, match=f"another {key}"):
        RunFolder.begin(tmp_path / "run", ASKED | {key: value})


@pytest.mark.parametrize("content", ["{}", "[]", '{"request": 1}'])
def test_a_foreign_run_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=r"run\.json") as caught:
        RunFolder.begin(tmp_path, ASKED)
    assert "folder" in caught.value.remedy


def test_temporary_files_of_a_killed_process_are_deleted_under_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    RunFolder.begin(folder, ASKED)
    left = [folder / ".run.json.a1b2c3d_.tmp", folder / "stage1" / ".x.safetensors.abcdefgh.tmp"]
    kept = [folder / "notes.tmp", folder / ".editor.tmp"]
    (folder / "stage1").mkdir()
    for file in (*left, *kept):
        file.touch()
    with locked(folder / LOCK), pytest.raises(TrainingError), open_run(folder, ASKED, Processes()):
        pass
    assert all(file.is_file() for file in (*left, *kept))
    with open_run(folder, ASKED, Processes()):
        assert not any(file.exists() for file in left)
        assert all(file.is_file() for file in kept)

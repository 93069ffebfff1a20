from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from einthoven.errors import FileError
from einthoven.files import (
    append_line,
    lock_for,
    locked,
    read_json,
    read_lines,
    read_metadata,
    read_tensors,
    replacing,
    write_json,
    write_tensors,
)


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    about = {name: name * 3 for name in "qwertyuiop"}
    for number in range(5):
        write_tensors(tmp_path / f"{number}.safetensors", tensors, about)
    contents = {(tmp_path / f"{number}.safetensors").read_bytes() for number in range(5)}
    assert len(contents) == 1
    found, metadata = read_tensors(tmp_path / "0.safetensors")
    assert metadata == about
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_tensors_have_the_permissions_of_other_files(tmp_path: Path) -> None:
    write_tensors(tmp_path / "tensors.safetensors", {"a": torch.ones(2)}, {})
    write_json(tmp_path / "plain.json", {})
    modes = [file.stat().st_mode for file in tmp_path.iterdir()]
    assert modes[0] == modes[1]


def run_out_of_disk(file: Path) -> None:
    with replacing(file) as temporary:
        temporary.write_text("half of")
        raise OSError("the disk is full")


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    with pytest.raises(FileError, match="full"):
        run_out_of_disk(tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.json"):
        read_json(tmp_path / "absent.json")
    for text in ("{", "null", "[1, 2]", "1"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FileError, match=r"bad\.json"):
            read_json(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    assert read_json(tmp_path / "list.json", list) == [1, 2]
    (tmp_path / "bad.safetensors").write_bytes(b"123")
    with pytest.raises(FileError, match=r"bad\.safetensors"):
        read_tensors(tmp_path / "bad.safetensors")


def test_a_lock_is_another_process_s_until_that_one_dies(tmp_path: Path) -> None:
    file = tmp_path / "folder" / ".lock"
    code = "import sys, time; from pathlib import Path; from einthoven.files import locked"
    code += "\nwith locked(Path(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with locked(file, wait=False) as mine:
            assert not mine
    finally:
        other.kill()
        other.communicate()
    with locked(file) as mine:
        assert mine


def test_two_names_of_a_place_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    places = [tmp_path / "p.csv", tmp_path / "link" / "p.csv", tmp_path / "x" / ".." / "p.csv"]
    assert len({lock_for(place) for place in places}) == 1
    assert lock_for(tmp_path / "q.csv") != lock_for(tmp_path / "p.csv")


def test_a_lock_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError) as caught,
        locked(tmp_path / "file" / ".lock", wait=False),
    ):
        pass
    assert caught.value.remedy


@pytest.mark.parametrize("error", [NotImplementedError("no locks here"), OSError(37, "No locks")])
def test_file_systems_without_locks_are_refused(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("einthoven.files.FileLock.acquire", acquire)
    with pytest.raises(FileError, match=r"\.lock") as caught, locked(tmp_path / ".lock"):
        pass
    assert caught.value.remedy


def test_a_line_after_a_torn_one_is_read(tmp_path: Path) -> None:
    append_line(tmp_path / "log", {"a": 1})
    with open(tmp_path / "log", "a") as handle:
        handle.write('{"a": 2')
    append_line(tmp_path / "log", {"a": 3})
    assert read_lines(tmp_path / "log") == [{"a": 1}, {"a": 3}]


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"a": 1}\n{"a\n{"a": 3}\n')
    with pytest.raises(FileError, match="line 2"):
        read_lines(tmp_path / "log")


def test_two_writers_of_one_file_do_not_collide(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with replacing(file) as one, replacing(file) as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert file.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_tensors_for_which_there_is_no_space_are_refused(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(FileError, match=r"large\.safetensors") as caught:
            write_tensors(tmp_path / "large.safetensors", {"a": torch.ones(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "space" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def flipped(file: Path, *, every: int = 1) -> Iterator[Path]:
    """The file with one bit of each byte flipped in turn."""
    sound = file.read_bytes()
    for place in range(0, len(sound), every):
        damaged = bytearray(sound)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        yield file
    file.write_bytes(sound)


def test_a_flipped_bit_of_a_line_is_found(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    entries = [{"epoch": 1, "loss": 0.25}, {"epoch": 2, "loss": float("inf")}]
    for entry in entries:
        append_line(file, entry)
    assert read_lines(file, least=2) == entries
    found = 0
    for _ in flipped(file):
        try:
            read = read_lines(file)
        except FileError:
            found += 1
        else:  # the checksum's own name, or the end of the last line
            assert [{key: line[key] for key in entries[0]} for line in read] == entries[: len(read)]
    assert found > 60
    file.write_bytes(b"")
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        read_lines(file, least=1)


def test_a_flipped_bit_of_tensors_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    tensors, metadata = {"a": torch.arange(6.0).reshape(2, 3)}, {"counters": "7"}
    write_tensors(file, tensors, metadata)
    found = 0
    for _ in flipped(file):
        try:
            values, notes = read_tensors(file)
        except FileError:
            found += 1
        else:
            assert torch.equal(values["a"], tensors["a"])
            assert notes["counters"] == "7"
    assert found > 100
    assert read_metadata(file) == metadata

"""One process, and two that train together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from einthoven.backbones.inference import device_of
from einthoven.backbones.registry import create_backbone
from einthoven.errors import EinthovenError, TrainingError
from einthoven.files import read_json, read_lines, write_tensors
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.training.distributed import Processes


def test_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "mps", "banana"):
        with pytest.raises(EinthovenError, match=f"device {name}"):
            Processes(name)
    assert Processes("auto").device == torch.device("cpu")


def test_devices_of_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    names = {"auto": "cuda"} | {n: n for n in ("cpu", "cuda", "cuda:0", "cuda:1", "mps")}
    assert {name: device_of(name) for name in names} == names
    with pytest.raises(EinthovenError, match="cuda:2") as caught:
        device_of("cuda:2")
    assert "cuda:0, cuda:1, mps" in caught.value.remedy
    used, world = [], 1
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    made = lambda cpu: SimpleNamespace(cpu=cpu, num_processes=world)  # noqa: E731
    monkeypatch.setattr("accelerate.Accelerator", made)
    assert [Processes(name).accelerator.cpu for name in ("cpu", "mps", "cuda:1")] == [True, 0, 0]
    assert used == ["cuda:1"]
    world = 2
    with pytest.raises(TrainingError, match=r"cuda:1 .*2 processes"):
        _ = Processes("cuda:1").accelerator


# Every process says what it learned; the folder is shared.
TOGETHER = """
import json, sys, torch
from torch import nn
from einthoven.training.run import open_run
from einthoven.training.distributed import Processes

here = Processes("cpu")
with open_run(sys.argv[1], {"stage": "test"}, here):
    pass
model = nn.Linear(1, 1)
nn.init.ones_(model.weight)
wrapped = here.wrap(model)
gradients = []
for skip in (False, True):
    model.zero_grad()
    with here.unsynchronised(wrapped, skip=skip):
        wrapped(torch.full((1, 1), float(1 + 2 * here.rank))).sum().backward()
    gradients.append(float(model.weight.grad))
norm = nn.BatchNorm1d(1)
norm.running_mean.fill_(5.0 + here.rank)
here.share_buffers(norm)
here.wait()
print(json.dumps({
    "running_mean": float(norm.running_mean),
    "rank": here.rank, "world": here.world, "gradients": gradients,
    "gathered": here.gather(f"from {here.rank}"),
    "mean": float(here.mean(torch.tensor(float(here.rank)))),
}))
"""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@pytest.mark.slow
def test_two_processes_share_a_folder_and_average_gradients(tmp_path: Path) -> None:
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TOGETHER, tmp_path / "run"],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results: list[dict[str, Any]] = []
    for process in started:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        results.append(json.loads(out.splitlines()[-1]))
    assert [result["rank"] for result in results] == [0, 1]
    for result in results:
        assert result["world"] == 2
        assert result["gathered"] == ["from 0", "from 1"]
        assert result["mean"] == 0.5
        assert result["running_mean"] == 5.0
        assert result["gradients"] == [2.0, 1.0 + 2 * result["rank"]]
    assert read_json(tmp_path / "run" / "run.json")["request"] == {"stage": "test"}


@pytest.mark.slow
def test_torchrun_post_trains_with_two_processes(
    tmp_path: Path, synthetic_path: Path, torchrun: Callable[..., Any]
) -> None:
    encoder = tmp_path / "model"
    network = create_backbone("mtecg_tiny_100hz", seed=0, init="pretraining")
    write_tensors(encoder, network.state_dict(), {})
    settings = [
        "precision=fp32", "data.crop_seconds=1.0", "data.evaluation_crops=1",
        "stage1.epochs=2", "stage1.crops=1", "stage2.epochs=2", "stage2.batch_size=16",
    ]  # fmt: skip
    arguments: list[Any] = [
        "-m", "einthoven", "posttrain", synthetic_path,
        "--backbone", "mtecg_tiny_100hz", "--weights", encoder, "--recipe", "demo/post-training",
        "--out", tmp_path / "run", "--min-records", "8", "--resamples", "20", "--device", "cpu",
    ]  # fmt: skip
    for setting in settings:
        arguments += ["--set", setting]
    # The cache is empty: one process packs, the other waits.
    done = torchrun(*arguments, EINTHOVEN_CACHE=str(tmp_path / "cache"))
    assert done.stdout.count("Model:") == 1
    run = tmp_path / "run"
    assert read_json(run / "run.json")["request"]["world"] == 2
    assert [line["epoch"] for line in read_lines(run / "stage2" / "metrics.jsonl")] == [1, 2]
    predictions = Predictions.load(run / "predictions" / "test.parquet")
    assert predictions.labels == load_model(run / "model").labels
    best = max(line["macro_auroc"] for line in read_lines(run / "stage2" / "metrics.jsonl"))
    assert read_json(run / "metrics.json")["validation"]["macro_auroc"] == pytest.approx(best)

"""Where a benchmark computes: `--device`, waiting for a GPU, and its memory."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

CPU = torch.device("cpu")


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option `--device`."""
    parser.add_argument(
        "--device", type=device_named, default=CPU, help="cpu (the default), cuda, or auto"
    )


def device_named(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one, else the CPU."""
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not available:
        raise argparse.ArgumentTypeError("PyTorch finds no GPU here")
    return device


def finish(device: torch.device) -> None:
    """Wait for the pending work of a GPU; a CPU has none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> float:
    """Reset the peak of the memory in use; return the megabytes in use now."""
    if device.type == "cuda":
        finish(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    # Makes the kernel forget the peak so far (Linux; see proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak(device: torch.device) -> float:
    """Megabytes in use at most since `reset_peak`: of a GPU's tensors, or of this process."""
    if device.type == "cuda":
        finish(device)
        return torch.cuda.max_memory_allocated(device) / 1e6
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[field].split()[0]) * 1024 / 1e6

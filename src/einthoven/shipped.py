"""The bundle that comes with einthoven, found by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from einthoven.errors import BundleError
from einthoven.files import read_json

SHIPPED = "einthoven-small"
ABOUT, WEIGHTS = "bundle.json", "weights.safetensors"

_FOLDER = Path(__file__).resolve().parent / "shipped_bundles"


@dataclass(frozen=True)
class Start:
    """Where training begins.

    Attributes
    ----------
    backbone : str
        A registered name.
    weights : path or None
        Its pretrained weights.
    options : dict
        Fields of its config.
    centred : bool
        Whether the network knows leads whose means were taken out, and no others.
    """

    backbone: str
    weights: str | Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    centred: bool = False


def shipped_bundle(name: str = SHIPPED) -> Path:
    """Folder of a bundle that was installed with einthoven.

    Raises
    ------
    BundleError
        When there is none of that name.
    """
    folder = _FOLDER / name
    if not (folder / ABOUT).is_file():
        known = sorted(path.parent.name for path in _FOLDER.glob(f"*/{ABOUT}"))
        raise BundleError(
            f"no bundle {name!r} was installed with einthoven",
            remedy=f"choose {' or '.join(known)}" if known else "install einthoven again",
        )
    return folder


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a bundle's folder, or the name of a shipped one."""
    return (Path(path) / ABOUT).is_file() or _shipped(Path(path)) is not None


def bundle_folder(bundle: str | Path) -> Path:
    """Folder of a bundle: a path, or the name of a shipped one.

    Raises
    ------
    BundleError
        When the shipped one is named and is not there.
    """
    path = Path(bundle)
    if path == Path(SHIPPED) and not path.exists():
        return shipped_bundle()
    return _shipped(path) or path


def _shipped(path: Path) -> Path | None:
    # A folder of the user's own goes before a shipped bundle of the same name.
    if len(path.parts) != 1 or path.exists():
        return None
    folder = _FOLDER / path.name
    return folder if (folder / ABOUT).is_file() else None


def start_from(backbone: str, weights: str | Path | None = None, *, random: bool = False) -> Start:
    """What a backbone's name stands for: itself, or the shipped bundle's encoder.

    Parameters
    ----------
    backbone : str
        A registered backbone, or the name of a shipped bundle.
    weights : path, optional
        Pretrained weights, a shipped bundle has its own; of a bundle of this backbone the config
        is taken as well.
    random : bool
        Start from random weights: of a shipped bundle only the network is taken.

    Raises
    ------
    BundleError
        When weights are given for a bundle that has them.
    """
    if backbone != SHIPPED:
        return _start_at(backbone, weights)
    if weights is not None:
        raise BundleError(
            f"{SHIPPED} has weights of its own; {weights} would replace them",
            remedy="leave --weights out, or name the backbone that the weights belong to",
        )
    folder = shipped_bundle(backbone)
    about = read_json(folder / ABOUT)
    found = _start_of(about, folder / WEIGHTS)
    return replace(found, weights=None) if random else found


def _start_at(backbone: str, weights: str | Path | None) -> Start:
    if weights is None or not is_bundle(weights):
        return Start(backbone, weights)
    folder = bundle_folder(weights)
    about = read_json(folder / ABOUT)
    if about["backbone"] != backbone:
        return Start(backbone, folder / WEIGHTS)
    return _start_of(about, folder / WEIGHTS)


def _start_of(about: dict[str, Any], weights: Path) -> Start:
    centred = any(step["step"] == "centre" for step in about["preparation"]["steps"])
    return Start(about["backbone"], weights, _options(about), centred)


def _options(about: dict[str, Any]) -> dict[str, Any]:
    """A bundle's config, with as many evaluation crops as its recipe chose."""
    options: dict[str, Any] = dict(about["backbone_options"])
    for step in about["preparation"]["steps"]:
        if step["step"] == "window" and "evaluation_crops" in options:
            options["evaluation_crops"] = step["evaluation_crops"]
    return options

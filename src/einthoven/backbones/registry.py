"""The catalogue of backbones.

Each network's module ends with `ENTRIES`, and the catalogue is the entries of all modules of this
package. Other packages add theirs with `register_backbone`, in a module that they declare as an
entry point (`einthoven.extensions`). Nothing is imported before the catalogue is used.
"""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from einthoven.errors import BackboneError
from einthoven.extensions import import_extensions
from einthoven.licences import Licence

if TYPE_CHECKING:
    from einthoven.backbones.config import BackboneConfig
    from einthoven.backbones.contract import Backbone
    from einthoven.signals.preparation import Preparation


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Everything about a registered backbone.

    Attributes
    ----------
    network : subclass of Backbone
        Class of the network, built from a configuration.
    config : BackboneConfig
        Its configuration, which carries the registry name; options replace fields.
    summary : str
        One-line description.
    parameters : int
        Number of parameters without a head.
    paper : str
        Publication.
    origin : str
        Source in at most 24 characters.
    weights_from : str or None
        Where the public weights are; they are not downloaded without consent. None if there are
        none.
    weights_name : str
        Repository, or another name to search for.
    weights_file : str
        File name of the public weights.
    weights_size, weights_sha256 : str
        Size in words and SHA-256 of the first file of `weights_from`; empty if not recorded.
    pretraining_data : str or None
        What the public weights were trained on.
    licence : Licence or None
        Licence of the public weights.
    contains_ptbxl : bool or None
        Whether the pretraining data of the public weights contain PTB-XL; None if that could not be
        checked, or there are no public weights.
    classifiers_saw_ptbxl : bool
        Whether the public fine-tuned classifiers of the family were trained on PTB-XL.
    recipe : str
        Recipe of a network that is trained for the task from random weights; empty for one that is
        pretrained. Here and below, another package gives the absolute path of its own.
    recipes : str
        Folder of recipes with settings for this backbone, which replace the general ones of the
        same name; empty if the general ones suit.
    pretraining_recipe : str
        Default recipe of self-supervised pretraining.
    missing_leads : str
        What the network does about leads that a record lacks, as a clause.
    mae : mapping
        Masked-autoencoder options that differ from `einthoven.objectives.mae.MAEConfig`'s defaults.
    """

    network: type[Backbone]
    config: BackboneConfig
    summary: str
    parameters: int
    paper: str
    origin: str
    weights_from: str | None = None
    weights_name: str = ""
    weights_file: str = ""
    weights_size: str = ""
    weights_sha256: str = ""
    pretraining_data: str | None = None
    licence: Licence | None = None
    contains_ptbxl: bool | None = None
    classifiers_saw_ptbxl: bool = False
    recipe: str = ""
    recipes: str = ""
    pretraining_recipe: str = "release"
    missing_leads: str = "it works as if the missing ones were zero"
    mae: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Registry name."""
        return self.config.name

    @property
    def family(self) -> str:
        """Family of networks with the same tensor names and reader of public checkpoints."""
        return self.network.family

    @property
    def reader(self) -> str:
        """Reader of public checkpoints, see `Backbone.reader`; empty if there is none."""
        return self.network.reader

    @property
    def is_supervised(self) -> bool:
        """Whether it is trained for the task from random weights."""
        return bool(self.recipe)

    def build(self, **options: Any) -> Backbone:
        """The network with fresh weights; options replace fields of the configuration."""
        network: Callable[..., Backbone] = self.network
        return network(self.config.override(options))


def catalogue() -> dict[str, Entry]:
    """All entries by name: pretrained networks, then supervised ones, then other packages'."""
    import_extensions()
    return _entries()


@cache
def _entries() -> dict[str, Entry]:
    package = import_module("einthoven.backbones")
    entries: list[Entry] = []
    for module in pkgutil.iter_modules(package.__path__, prefix="einthoven.backbones."):
        entries += getattr(import_module(module.name), "ENTRIES", ())
    return {one.name: one for one in sorted(entries, key=lambda one: one.is_supervised)}


def register_backbone(entry: Entry) -> None:
    """Add a backbone to the catalogue.

    Raises
    ------
    BackboneError
        If the name belongs to another backbone.
    """
    if _entries().setdefault(entry.name, entry) != entry:
        raise BackboneError(
            f"the name {entry.name!r} belongs to another backbone", remedy="choose another name"
        )


def backbone_names() -> list[str]:
    """Every registered name."""
    return list(catalogue())


def entry(name: str) -> Entry:
    """The catalogue's entry of a backbone.

    Raises
    ------
    BackboneError
        If the name is not registered; the remedy lists similar ones.
    """
    if name == "ensemble":
        raise BackboneError(
            "an ensemble is the mean prediction of several networks, not a backbone",
            remedy="train its members, then: einthoven ensemble RUN RUN ... --out FOLDER",
        )
    if name not in catalogue():
        near = get_close_matches(str(name), catalogue(), n=3, cutoff=0.5)
        raise BackboneError(
            f"unknown backbone {name!r}",
            remedy=f"did you mean {' or '.join(near)}?"
            if near
            else "choose one of `einthoven backbones`, or of backbone_names()",
        )
    return catalogue()[name]


def preparation_of(name: str, options: Mapping[str, Any]) -> Preparation:
    """Preparation of a backbone with some options; no weights are made."""
    import torch

    with torch.device("meta"):
        return entry(name).build(**options).preparation


def leads_of(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Leads that a backbone with some options reads from a record; no weights are made."""
    return preparation_of(name, options).sources


def create_backbone(name: str, *, seed: int | None = None, **overrides: Any) -> Backbone:
    """Build a registered backbone with fresh weights.

    Parameters
    ----------
    name : str
        A name of `backbone_names()`.
    seed : int, optional
        Seed of the initial weights; the caller's random state does not change. Without it the
        weights come from PyTorch's default generator.
    **overrides
        Fields of the network's config, such as `leads`, `window`, `depth` or `init`.

    Returns
    -------
    Backbone
        In training mode, on PyTorch's default device.

    Raises
    ------
    BackboneError
        If the name or an override is unknown, or a value impossible.
    """
    registered = entry(name)
    with seeded(seed):
        return registered.build(**overrides)


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed PyTorch's CPU generator inside the block only; None changes nothing."""
    if seed is None:
        yield
        return
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

"""A network that is given only some of the leads it was made for.

The network's own policy comes first: what its `leads=` makes of an input with fewer rows (ST-MEM
has fewer tokens then, MTECG and S4 a smaller kernel). A network that refuses these leads is given
zeros in the place of the missing ones, after the preparation of those that are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from einthoven.backbones.leads import canonical_leads
from einthoven.errors import BackboneError

__all__ = ["FewerLeads", "Policy"]

Policy = Literal["own", "zeroed"]


class FewerLeads(nn.Module):
    """A backbone or a classifier that takes some of its leads, and nothing but them.

    Parameters
    ----------
    network : Backbone or Classifier
        Called as ``network(x, leads=leads)``.
    leads : sequence of str
        The leads that there are, by name.
    every : sequence of str
        The leads that the network was made for, in its order.
    samples : int
        Length of a prepared input, on which the network's policy is asked for.

    Attributes
    ----------
    leads : tuple of str
        The rows of an input, in the network's order.
    policy : {"own", "zeroed"}
        What stands for the missing leads.

    Raises
    ------
    BackboneError
        When a lead is not among those that the network was made for.
    """

    def __init__(
        self, network: nn.Module, leads: Sequence[str], *, every: Sequence[str], samples: int
    ) -> None:
        super().__init__()
        wanted = canonical_leads(leads)
        absent = [lead for lead in wanted if lead not in every]
        if absent:
            raise BackboneError(
                f"leads = {tuple(leads)!r}: {', '.join(absent)} is not among the leads that this "
                f"network reads, {', '.join(every)}",
                remedy="name some of the leads that it reads",
            )
        self.network = network
        self.every = tuple(every)
        self.leads = tuple(lead for lead in every if lead in wanted)
        self.rows = [self.every.index(lead) for lead in self.leads]
        self.policy: Policy = "own" if self._takes(samples) else "zeroed"

    def forward(self, x: Tensor) -> Tensor:
        """(batch, leads, samples), rows as `leads`, to what the network answers."""
        if self.policy == "own":
            answer: Tensor = self.network(x, leads=self.leads)
            return answer
        whole = x.new_zeros(len(x), len(self.every), x.shape[2])
        whole[:, self.rows] = x
        filled: Tensor = self.network(whole)
        return filled

    def _takes(self, samples: int) -> bool:
        device = next(self.network.parameters()).device
        try:
            with torch.no_grad():
                self.network(
                    torch.zeros(1, len(self.leads), samples, device=device), leads=self.leads
                )
        except BackboneError:
            return False
        return True

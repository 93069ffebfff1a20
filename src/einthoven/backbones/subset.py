"""A network for an input with only some of its leads.

Limb leads that follow from two of those that there are, are computed in millivolts, before anything
else, whatever the network: it was made for them, and they are what would have been recorded. What
becomes of the rest is the network's own policy, what its `leads=` makes of an input with fewer
rows. ST-MEM has fewer tokens then, MTECG and S4 a smaller kernel, ECGFounder and ECG-FM zeros. A
network that refuses these leads is not given made-up ones: it refuses here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from einthoven.backbones.leads import canonical_leads
from einthoven.errors import BackboneError
from einthoven.records.limb_leads import derivable_leads

__all__ = ["FewerLeads", "Policy"]

Policy = Literal["own", "derived"]


class FewerLeads(nn.Module):
    """Restrict a backbone or classifier to some of its leads.

    Parameters
    ----------
    network : Backbone or Classifier
        Called as ``network(x, leads=leads)``.
    leads : sequence of str
        The leads that there are, by name.
    every : sequence of str
        The leads that the network was made for, in its order.
    samples : int
        Length of a prepared input, for a trial forward pass.

    Attributes
    ----------
    leads : tuple of str
        The leads that there are, in the network's order.
    rows : tuple of str
        The rows of an input: `leads`, and those that its preparation is to compute
        (``preparation.with_leads(rows).deriving(leads)``).
    policy : {"own", "derived"}
        Whether anything is computed.

    Raises
    ------
    BackboneError
        If a lead is not among those that the network was made for, or the network refuses to go
        without the others.
    """

    def __init__(
        self, network: nn.Module, leads: Sequence[str], *, every: Sequence[str], samples: int
    ) -> None:
        super().__init__()
        wanted = canonical_leads(leads)
        absent = [lead for lead in wanted if lead not in every]
        if absent:
            raise BackboneError(
                f"{', '.join(absent)} is not among the leads that this network reads, "
                f"{', '.join(every)}",
                remedy="name some of the leads that it reads",
            )
        self.network = network
        self.training = network.training  # restoring the wrapper's mode restores both
        self.leads = tuple(lead for lead in every if lead in wanted)
        follow = derivable_leads(wanted)
        self.rows = tuple(lead for lead in every if lead in wanted or lead in follow)
        self.policy: Policy = "own" if self.rows == self.leads else "derived"
        self._try(samples)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, rows, samples), rows as `rows`, to what the network answers."""
        answer: Tensor = self.network(x, leads=self.rows)
        return answer

    def _try(self, samples: int) -> None:
        """Fail early: run one forward pass on zeros."""
        device = next(self.network.parameters()).device
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()  # zeros are nothing that a batch norm should count
        try:
            with torch.no_grad():
                self(torch.zeros(1, len(self.rows), samples, device=device))
        finally:
            for module, was_training in modes:
                module.training = was_training

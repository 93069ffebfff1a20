"""A network without some of its leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from einthoven.backbones.leads import subset_of

Policy = Literal["native", "derived"]


class LeadSubset(nn.Module):
    """Restrict a backbone or classifier to some of its leads.

    Parameters
    ----------
    network : Backbone or Classifier
        Called as ``network(x, leads=leads)``.
    leads : sequence of str
        Names of the available leads.
    all_leads : sequence of str
        Leads that the network was built for, in its order.
    samples : int
        Length of a prepared input, for a trial forward pass.

    Attributes
    ----------
    leads : tuple of str
        The available leads, in the network's order.
    rows : tuple of str
        Rows of an input: `leads` and those that the preparation computes
        (``preparation.with_leads(rows).deriving(leads)``).
    policy : {"native", "derived"}
        Whether limb leads are computed, or the network alone handles the missing ones.

    Raises
    ------
    BackboneError
        If the network was not built for one of the leads, or refuses an input without the others.
    """

    def __init__(
        self, network: nn.Module, leads: Sequence[str], *, all_leads: Sequence[str], samples: int
    ) -> None:
        super().__init__()
        self.leads, self.rows = subset_of(leads, all_leads)
        self.network = network
        self.training = network.training  # restoring the wrapper's mode restores both
        self.policy: Policy = "native" if self.rows == self.leads else "derived"
        self._check(samples)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, rows, samples), rows as `rows`, to the network's output."""
        output: Tensor = self.network(x, leads=self.rows)
        return output

    def _check(self, samples: int) -> None:
        """Run one forward pass on zeros, so that a refusal comes early."""
        device = next(self.network.parameters()).device
        modes = [(module, module.training) for module in self.network.modules()]
        self.network.eval()  # zeros must not enter the statistics of batch norms
        try:
            with torch.no_grad():
                self(torch.zeros(1, len(self.rows), samples, device=device))
        finally:
            for module, was_training in modes:
                module.training = was_training

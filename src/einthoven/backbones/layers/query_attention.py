"""Head that pools tokens by the attention of one learned query."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QueryAttention(nn.Module):
    """Attention of one learned query over the tokens of a record, projected to the outputs.

    This is the head of the frozen mode of arXiv 2509.25095 and 2605.12241: a query of the width of
    a token, 16 heads, and projections without biases, the last of them to the outputs.

    Parameters
    ----------
    in_features : int
        Width of a token.
    out_features : int
        Outputs.

    Notes
    -----
    Queries, keys and values are as wide as a token if 16 divides that width, as it does in every
    published size; otherwise their width is the next multiple of 16.

    With a single query, products of matrices can be taken in another order: the query is projected
    to one vector for each head in the space of tokens, and values are projected after the tokens
    have been averaged. That is exact, and saves two projections of every token.
    """

    HEADS = 16

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        inner = -(-in_features // self.HEADS) * self.HEADS
        self.query = nn.Parameter(torch.empty(in_features))
        self.query_projection = nn.Linear(in_features, inner, bias=False)
        self.key_projection = nn.Linear(in_features, inner, bias=False)
        self.value_projection = nn.Linear(in_features, inner, bias=False)
        self.output = nn.Linear(inner, out_features, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        nn.init.normal_(self.query, std=self.in_features**-0.5)
        for projection in (
            self.query_projection, self.key_projection, self.value_projection, self.output
        ):  # fmt: skip
            projection.reset_parameters()

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, tokens, in_features) to (batch, out_features)."""
        weights = self.attention(tokens)
        pooled = weights @ tokens  # (batch, heads, in_features)
        values = self.value_projection.weight.view(self.HEADS, -1, self.in_features)
        heads = torch.einsum("bhi,hdi->bhd", pooled, values)
        outputs: Tensor = self.output(heads.flatten(1))
        return outputs

    def attention(self, tokens: Tensor) -> Tensor:
        """Share of each token in each head, (batch, heads, tokens); the shares of a head sum to 1.

        `tokens` are (batch, tokens, in_features), any number of them.
        """
        query = self.query_projection(self.query).view(self.HEADS, -1)
        keys = self.key_projection.weight.view(self.HEADS, -1, self.in_features)
        directions = torch.einsum("hd,hdi->hi", query, keys) * query.shape[1] ** -0.5
        scores: Tensor = directions @ tokens.mT
        return scores.softmax(-1)

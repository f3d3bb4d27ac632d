"""Transformers over the tokens of an event, as conditioners of couplings and autoregressive maps.

A vector (B, T c) is read as T tokens of c numbers each, one behind the other.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditioners.embedding import LayerNorm


class TransformerBlock(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h)): a pre-norm block with an exact GELU.

    `qkv` gives the queries of all heads, then their keys, then their values.

    Args:
        width: of h.
        heads: of the attention; they share the width equally.
        mlp_width: of the hidden layer.

    Reference: Vaswani et al. 2017, section 3.2 (arXiv 1706.03762); Xiong et al. 2020, figure 1b
    (arXiv 2002.04745).
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_scale = 1 / math.sqrt(width // heads)
        self.attention_norm = LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp_norm = LayerNorm(width)
        self.expand = nn.Linear(width, mlp_width)
        self.contract = nn.Linear(mlp_width, width)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Compute one block.

        Args:
            hidden: (B, T, width).
            mask: (T, T), True where a token (row) sees another (column); None: all see all.

        Returns:
            (B, T, width).
        """
        query, key, value = self.queries_keys_values(hidden)
        logits = torch.bmm(query, key.transpose(1, 2))
        if mask is not None:
            logits = torch.where(mask, logits, -math.inf)
        seen = torch.bmm(logits.softmax(2), value)
        return self.finish(hidden, seen)

    def queries_keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the heads ask, are found by, and tell: each (B heads, T, width / heads).

        Queries are divided by the root of their width already.
        """
        tokens, width = hidden.shape[1:]
        parts = list(self.qkv(self.attention_norm(hidden)).chunk(3, 2))
        if self.query_scale != 1:
            parts[0] = parts[0] * self.query_scale
        split = (-1, tokens, self.heads, width // self.heads)
        query, key, value = (
            part.reshape(split).transpose(1, 2).reshape(-1, tokens, width // self.heads)
            for part in parts
        )
        return query, key, value

    def finish(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """Add what the heads saw, (B heads, T, width / heads), and then the perceptron."""
        tokens, width = hidden.shape[1:]
        seen = seen.reshape(-1, self.heads, tokens, width // self.heads).transpose(1, 2)
        hidden = hidden + self.project(seen.reshape(-1, tokens, width))
        finished: Tensor = hidden + self.contract(F.gelu(self.expand(self.mlp_norm(hidden))))
        return finished


class Transformer(nn.Module):
    """Parameters of T tokens from T tokens: (B, T c) -> (B, num_params T c').

    Args:
        tokens: T.
        token_size: c, numbers of a token.
        num_params: blocks of outputs, see `unpack_params`.
        width: of the hidden tokens.
        depth: blocks.
        heads: of each attention.
        mlp_width: of each block's hidden layer.
        is_causal: whether the outputs for a token depend on the tokens before it alone; those for
            the first are then zeros.
        has_final_norm: whether the tokens are normalised before the last layer.
        num_classes: classes of a conditional network: a vector a class is added to all tokens.

    Raises:
        ValueError: the heads cannot share the width equally.

    Reference: Zhai et al. 2024, TarFlow, section 3 (arXiv 2412.06329); Kolesnikov et al. 2024, Jet,
    section 2 (arXiv 2412.15129).
    """

    mask: Tensor | None

    def __init__(
        self,
        tokens: int,
        token_size: int,
        num_params: int,
        *,
        width: int,
        depth: int,
        heads: int,
        mlp_width: int,
        is_causal: bool = False,
        has_final_norm: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads: expected a divisor of the width {width}, got {heads}")
        self.tokens = tokens
        self.token_size = token_size
        self.num_params = num_params
        self.is_causal = is_causal
        self.entry = nn.Linear(token_size, width)
        self.position = nn.Parameter(torch.randn(tokens, width) * 1e-2)
        classes = None if num_classes is None else torch.randn(num_classes, width) * 1e-2
        self.classes = None if classes is None else nn.Parameter(classes)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, mlp_width) for _ in range(depth))
        self.final_norm = LayerNorm(width) if has_final_norm else nn.Identity()
        self.exit = nn.Linear(width, num_params * token_size)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)
        mask = torch.ones(tokens, tokens, dtype=torch.bool).tril() if is_causal else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the parameters of all tokens.

        Args:
            x: (B, T c).
            context: one-hot classes (B, num_classes).

        Returns:
            (B, num_params T c): blocks of the parameters of all tokens.
        """
        hidden = self.entry(x.reshape(-1, self.tokens, self.token_size)) + self.position
        if self.classes is not None and context is not None:
            hidden = hidden + (context @ self.classes).unsqueeze(1)
        for block in self.blocks:
            hidden = block(hidden, self.mask)
        raw = self.exit(self.final_norm(hidden))
        if self.is_causal:
            raw = F.pad(raw[:, :-1], (0, 0, 1, 0))
        size = (-1, self.tokens, self.num_params, self.token_size)
        blocks: Tensor = raw.reshape(size).transpose(1, 2)
        return blocks.reshape(-1, self.num_params * self.tokens * self.token_size)

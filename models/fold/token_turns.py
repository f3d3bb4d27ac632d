"""Causal transformers evaluated token by token: what a head was told before is remembered.

A decode asks for the parameters of one token after the other. The keys and values of the tokens
before are kept, so that each token passes the network once (a "KV cache"). All turns are one loop
with memories of fixed size, so that a graph holds one turn whatever the number of tokens.
"""

from typing import cast

import torch
from torch import Tensor, nn

from models.conditioners.transformer import Transformer, TransformerBlock
from models.fold.networks import Network
from models.fold.scalar import Scalar, Slopes
from models.ode.while_loop import Carry, repeat


class TokenTurns(nn.Module):
    """The inverse of an autoregressive map over tokens, in turns: turn t gives token t.

    Args:
        network: one causal `Transformer`; its weights are not copied.
        scalar: the map of all features of a token.
    """

    is_here: Tensor

    def __init__(self, network: Network, scalar: Scalar) -> None:
        super().__init__()
        self.network = network
        self.scalar = scalar
        self.register_buffer("is_here", torch.eye(self.net.tokens, dtype=torch.bool))

    @property
    def net(self) -> Transformer:
        return cast(Transformer, self.network.nets[0])

    def decode(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Slopes]:
        """y (B, T c) -> x, and log|dx/dy| of each number or None."""
        net = self.net
        if self.network.narrows and context is not None:
            context = context.to(net.position.dtype)
        y = y.reshape(-1, net.tokens, net.token_size)
        raw = net.position.new_zeros(len(y), net.num_params * net.token_size)
        found = self._move(y[:, 0], raw)
        first = [_put(torch.zeros_like(y), part, self.is_here[:1]) for part in found]
        width = net.position.shape[1]
        heads = cast(TransformerBlock, net.blocks[0]).heads
        memory = net.position.new_zeros(len(y), heads, net.tokens, width // heads)
        carry = (found[0], *first, *[memory] * (2 * len(net.blocks)))
        given = (y,) if context is None else (y, context)
        _, *ended = repeat(self._take_turn, carry, given, net.tokens - 1)
        x, *slopes = (part.flatten(1) for part in ended[: len(first)])
        return x, next(iter(slopes), None)

    def _take_turn(self, before: Tensor, carry: Carry, given: Carry) -> Carry:
        """The token behind the one of the number `before` (1,)."""
        news, *rest = carry
        y, *context = given
        net = self.net
        depth = 2 * len(net.blocks)
        found, memory = rest[:-depth], rest[-depth:]
        hidden = net.entry(news.to(net.position.dtype)) + net.position.index_select(0, before)
        if net.classes is not None and context:
            hidden = hidden + context[0] @ net.classes
        hidden = hidden.unsqueeze(1)
        places = (
            self.is_here.index_select(0, before),
            cast(Tensor, net.mask).index_select(0, before),
        )
        told: list[Tensor] = []
        for layer, block in enumerate(net.blocks):
            known = memory[2 * layer], memory[2 * layer + 1]
            hidden, new = _pass_block(cast(TransformerBlock, block), hidden, known, places)
            told += new
        raw = net.exit(net.final_norm(hidden)).squeeze(1)
        moved = self._move(y.index_select(1, before + 1).squeeze(1), raw)
        here = self.is_here.index_select(0, before + 1)
        found = [_put(old, part, here) for old, part in zip(found, moved, strict=True)]
        return (moved[0], *found, *told)

    def _move(self, y: Tensor, raw: Tensor) -> list[Tensor]:
        """x (B, c), and its log-slopes if it has some."""
        widened = self.network.widens_to
        x, slopes = self.scalar.decode(y, (raw if widened is None else raw.to(widened),))
        return [x] if slopes is None else [x, slopes]


def _pass_block(
    block: TransformerBlock,
    hidden: Tensor,
    known: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Compute one block for one token.

    Args:
        known: keys and values of the tokens before, (B, heads, T, d).
        places: (1, T) each: where the token is, and which it sees.

    Returns:
        The hidden token (B, 1, width), and its keys and values among those known.
    """
    is_here, is_seen = places
    query, *told = block.queries_keys_values(hidden)
    heads, tokens, size = known[0].shape[1:]
    keys, values = (
        torch.where(is_here[:, :, None], part.reshape(-1, heads, 1, size), old)
        for part, old in zip(told, known, strict=True)
    )
    # Twice: onnxruntime rounds a product with one row in another way than one with many.
    query = torch.cat((query, query), 1)
    logits = torch.bmm(query, keys.reshape(-1, tokens, size).transpose(1, 2))
    weights = torch.where(is_seen, logits, -torch.inf).softmax(2)
    seen = torch.bmm(weights, values.reshape(-1, tokens, size))[:, :1]
    return block.finish(hidden, seen), [keys, values]


def _put(tokens: Tensor, token: Tensor, is_here: Tensor) -> Tensor:
    """Tokens (B, T, c) with another (B, c) at the place that a one-hot (1, T) says."""
    return torch.where(is_here[:, :, None], token[:, None], tokens)

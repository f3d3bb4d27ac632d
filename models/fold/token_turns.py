"""Causal transformers evaluated token by token: what a head was told before is remembered.

A decode asks for the parameters of one token after the other. The keys and values of the tokens
before are kept, so that each token passes the network once (a "KV cache").
"""

from typing import cast

import torch
from torch import Tensor

from models.conditioners.transformer import Transformer, TransformerBlock
from models.fold.incremental import Turns
from models.fold.network_steps import Memory


class TokenTurns(Turns):
    """A causal `Transformer` in turns: turn t gives the parameters of token t.

    Args:
        net: keeps its weights; they are not copied.
    """

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        self.net = net

    @property
    def dtype(self) -> torch.dtype:
        return self.net.position.dtype

    def compute(
        self, turn: int, news: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor:
        net = self.net
        if news is None:
            return net.position.new_zeros(rows, net.num_params * net.token_size)
        hidden = net.entry(news) + net.position[turn - 1]
        if net.classes is not None and context is not None:
            hidden = hidden + context @ net.classes
        hidden = hidden.unsqueeze(1)
        for layer, block in enumerate(net.blocks):
            hidden = _pass_block(cast(TransformerBlock, block), hidden, memory, 2 * layer)
        raw: Tensor = net.exit(net.final_norm(hidden))
        return raw.squeeze(1)


def _pass_block(block: TransformerBlock, hidden: Tensor, memory: Memory, place: int) -> Tensor:
    """Compute one block for one token, and remember its keys and values at `place` and behind."""
    query, key, value = block.queries_keys_values(hidden)
    if place in memory:
        key = torch.cat((memory[place], key), 1)
        value = torch.cat((memory[place + 1], value), 1)
    memory[place], memory[place + 1] = key, value
    logits = torch.bmm(query, key.transpose(1, 2))
    return block.finish(hidden, torch.bmm(logits.softmax(2), value))

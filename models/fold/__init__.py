"""The inference form of a flow."""

import copy

import torch

from models.flow import Flow
from models.fold.rules import fold_chain

__all__ = ["fold"]


@torch.no_grad()
def fold(flow: Flow) -> Flow:
    """The same flow with everything computed ahead that does not depend on the row.

    Runs of maps that are the same for every row (actnorm, batch norm, permutations, invertible
    matrices, preprocessing) become one map with its inverse; their log-dets become one number;
    norms, masks and scales inside networks become part of the weights beside them; coupling masks
    become halves; autoregressive maps decode in one pass of their network instead of D. All of
    this is done in float64, then cast to the dtype of `flow`.

    The result is a `Flow` for inference only: it has no family, so it cannot be saved, and training
    it has no meaning. It differs from `flow` by rounding.
    """
    wide = copy.deepcopy(flow).to("cpu", torch.float64).eval().requires_grad_(False)
    chain = fold_chain(wide.chain, flow.event_shape)
    folded = Flow([chain], flow.event_shape, context_shape=flow.context_shape, facts=flow.facts)
    return folded.to(flow.device, flow.dtype).requires_grad_(False).eval()

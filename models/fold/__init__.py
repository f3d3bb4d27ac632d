"""The inference form of a flow."""

import copy

import torch

from models.flow import Flow
from models.fold.chain import FoldedChain
from models.fold.coupling import ConstantMove, FoldedPrior
from models.fold.incremental import Turns
from models.fold.networks import Network
from models.fold.planar import FoldedPlanar, FoldedRadial
from models.fold.rules import fold_chain
from models.fold.scalar import Trailing
from models.monotone.mixture import GaussianMixture

__all__ = ["fold"]

# Maps between which values stay float64.
_WIDE = (Trailing, ConstantMove, FoldedPlanar, FoldedRadial, GaussianMixture)


@torch.no_grad()
def fold(flow: Flow, *, dtype: torch.dtype | None = None, is_exact: bool = False) -> Flow:
    """The same flow with everything computed ahead that does not depend on the row.

    Runs of maps that are the same for every row (actnorm, batch norm, permutations, invertible
    matrices, preprocessing) become one map with its inverse; their log-dets become one number;
    norms, masks and scales inside networks become part of the weights beside them; coupling masks
    become halves; autoregressive maps decode in one pass of their network instead of D. All of
    this is done in float64, then cast to `dtype`.

    The result is a `Flow` for inference only: it has no family, so it cannot be saved, and training
    it has no meaning. It differs from `flow` by rounding.

    Args:
        flow: any flow; it is not changed.
        dtype: what the result computes in; left out, what `flow` does.
        is_exact: everything is computed in float64, whatever the dtype of what goes in and out.
    """
    wide = copy.deepcopy(flow).to("cpu", torch.float64).eval().requires_grad_(False)
    chain = fold_chain(wide.chain, flow.event_shape)
    chain.context_embedding = wide.context_embedding
    folded = Flow([chain], flow.event_shape, context_shape=flow.context_shape, facts=flow.facts)
    _cast(chain, dtype or flow.dtype, is_exact=is_exact)
    folded.to(flow.device)
    # Convolutions on a CPU are up to twice as fast with the channels innermost.
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.requires_grad_(False).eval()


def _cast(chain: FoldedChain, dtype: torch.dtype, *, is_exact: bool) -> None:
    """Let a chain compute in `dtype`; values between splines and the like stay float64.

    A spline is steep where its bins are narrow: rounding a value between two of them to float32
    costs up to 1e-4 nats, rounding what the networks say a hundredth of that. Planar and radial
    maps are as steep, and have no networks.
    """
    is_steep = any(isinstance(part, _WIDE) for part in chain.modules())
    chain.is_wide = is_exact or is_steep
    if is_exact:
        return
    if not is_steep:
        chain.to(dtype)
        return
    for part in chain.modules():
        if isinstance(part, Network | Turns | FoldedPrior):
            part.to(dtype)
        if isinstance(part, Network | Turns):
            part.narrows = True

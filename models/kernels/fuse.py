"""The fused form of a folded flow: every part that one kernel can compute becomes one."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from models.flow import Flow
from models.fold.chain import FoldedChain
from models.fold.continuous import FoldedContinuous
from models.fold.coupling import HalfCouplings
from models.kernels.coupling import FusedCouplings
from models.kernels.refusal import NotFused
from models.kernels.solve import FusedContinuous

# What of a folded flow has a kernel, and what makes it.
_FUSED: dict[type[nn.Module], Callable[[nn.Module, str], nn.Module]] = {
    HalfCouplings: lambda part, precision: FusedCouplings(
        cast(HalfCouplings, part), precision=precision
    ),
    FoldedContinuous: lambda part, precision: FusedContinuous(
        cast(FoldedContinuous, part), precision=precision
    ),
}


def fuse(folded: Flow, *, precision: str = "ieee") -> Flow:
    """The same flow with kernels in the place of parts that have one.

    Args:
        folded: of `models.fold`, in float32, where it computes; it is not changed.
        precision: of the kernels' products: "ieee" for float32, "tf32" or "tf32x3".

    Raises:
        NotFused: it has no part with a kernel, or computes in float64.
    """
    if folded.dtype != torch.float32:
        raise NotFused(f"it computes in {folded.dtype}: kernels compute in float32")
    if any(part.is_wide for part in folded.modules() if isinstance(part, FoldedChain)):
        raise NotFused("its values are float64 between the networks: kernels compute in float32")
    fused = copy.deepcopy(folded)
    count = 0
    for module in list(fused.modules()):
        for name, child in module.named_children():
            if type(child) in _FUSED:
                setattr(module, name, _FUSED[type(child)](child, precision))
                count += 1
    if not count:
        raise NotFused(
            "it has neither couplings over vectors nor dense vector fields, which have kernels"
        )
    return fused.eval()

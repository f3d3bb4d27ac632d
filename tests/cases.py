"""The table of flows every property test runs over: one entry or more a family.

Cases are small (D <= 64) and together use every option of every family at least once. Weights are
perturbed: a freshly initialised flow is nearly the identity and passes everything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models import golden
from models.flow import Flow
from models.registry import build


@dataclass(frozen=True, slots=True)
class Case:
    """A family with a configuration.

    Attributes:
        scale: standard deviation of the perturbation of the weights.
        pixels: inputs are values in 0..255 (not whole numbers) instead of standard normal ones.
        continuous: an ODE is solved, so tolerances are the solver's.
    """

    family: str
    config: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 0.2
    pixels: bool = False
    continuous: bool = False

    @property
    def features(self) -> int:
        """D, read off the configuration."""
        return math.prod(self.config.get("event_shape", (self.config.get("features", 0),)))


CASES: dict[str, Case] = {
    "glow": Case(
        "glow",
        {"event_shape": [1, 4, 4], "num_levels": 2, "num_steps": 2, "hidden_channels": 4},
        scale=0.1,
    ),
    "glow_additive_plain": Case(
        "glow",
        {
            "event_shape": [3, 4, 4],
            "num_levels": 1,
            "num_steps": 2,
            "hidden_channels": 4,
            "permutation": "conv",
            "coupling": "additive",
            "top_prior": "standard",
        },
        scale=0.1,
    ),
    "glow_batch_norm_image_latents": Case(
        "glow",
        {
            "event_shape": [2, 4, 8],
            "num_levels": 2,
            "num_steps": 1,
            "hidden_channels": 4,
            "permutation": "qr_conv",
            "scale": "tanh",
            "form": "scale_then_shift",
            "normalisation": "batch_norm",
            "negative_slope": 0.1,
            "log_scale_factor": None,
            "split_prior": "standard",
            "top_prior": "standard",
            "latent_order": "image",
        },
        scale=0.1,
    ),
    "glow_middle_padding_pixels": Case(
        "glow",
        {
            "event_shape": [1, 8, 8],
            "num_levels": 3,
            "num_steps": 1,
            "hidden_channels": 4,
            "permutation": "reverse",
            "form": "unshift_then_unscale",
            "keep_first": False,
            "actnorm_form": "unshift_then_unscale",
            "actnorm_storage": "direct",
            "output_padding": "middle",
            "log_scale_factor": 1.0,
            "split_prior": "channel",
            "latent_order": "coarse_first",
            "preprocessing": [
                {"kind": "dequantise"},
                {"kind": "shift_scale", "shift": -0.5, "scale": 0.00390625},
            ],
        },
        scale=0.1,
        pixels=True,
    ),
    "glow_class_conditional_logit": Case(
        "glow",
        {
            "event_shape": [3, 4, 4],
            "num_levels": 2,
            "num_steps": 1,
            "hidden_channels": 4,
            "permutation": "shuffle",
            "actnorm_form": "scale_then_shift",
            "normalisation": "none",
            "output_padding": "ones",
            "split_prior": "element",
            "top_prior": "element",
            "num_classes": 3,
            "squeeze_order": "checkerboard",
            "preprocessing": [
                {"kind": "reduce_bits", "bits": 5},
                {"kind": "dequantise"},
                {"kind": "shift_scale", "scale": 0.00390625},
                {"kind": "logit", "alpha": 0.01},
                {"kind": "standardise", "mean": [0.1, 0.2, 0.3], "std": [1.0, 1.1, 1.2]},
            ],
        },
        scale=0.1,
        pixels=True,
    ),
    "realnvp_image": Case(
        "realnvp_image",
        {"event_shape": [1, 4, 4], "num_scales": 2, "mid_channels": 3, "num_blocks": 1},
    ),
    "realnvp_image_three_scales": Case(
        "realnvp_image",
        {
            "event_shape": [1, 8, 8],
            "num_scales": 3,
            "num_couplings": 1,
            "mid_channels": 2,
            "num_blocks": 0,
            "scale": "exp",
            "form": "shift_then_scale",
            "latent_order": "fine_first",
            "preprocessing": [
                {"kind": "dequantise"},
                {"kind": "shift_scale", "scale": 0.00390625},
                {"kind": "logit", "alpha": 0.05},
            ],
        },
        pixels=True,
    ),
}

DISCRETE = [name for name, case in CASES.items() if not case.continuous]


def make_flow(name: str) -> Flow:
    """Build a case in float64 and evaluation mode, with perturbed weights and statistics."""
    case = CASES[name]
    torch.manual_seed(0)
    flow = build(case.family, case.config).double()
    return perturb(flow, case.scale).eval()


def perturb(flow: Flow, scale: float, seed: int = 1) -> Flow:
    """Move every parameter and running statistic away from where it starts."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return scale * torch.randn(like.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += noise(parameter)
        for key, buffer in flow.named_buffers():
            if key.endswith("running_mean"):
                buffer += noise(buffer)
            elif key.endswith("running_var"):
                buffer *= noise(buffer).exp()
    return flow


def make_inputs(name: str, flow: Flow, rows: int = 5) -> golden.Inputs:
    """Rows of data a case can take, with context where it is conditional."""
    generator = torch.Generator().manual_seed(2)
    shape = (rows, *flow.event_shape)
    if CASES[name].pixels:
        x = 255 * torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if flow.context_shape is None:
        return golden.Inputs(x)
    if flow.facts.num_classes is not None:
        labels = torch.arange(rows) % flow.facts.num_classes
        return golden.Inputs(x, torch.eye(flow.facts.num_classes, dtype=torch.float64)[labels])
    context = torch.randn((rows, *flow.context_shape), generator=generator, dtype=torch.float64)
    return golden.Inputs(x, context)

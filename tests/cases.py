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

from models.checkpoints import golden
from models.flow import Flow
from models.registry import build


@dataclass(frozen=True, slots=True)
class Case:
    """A family with a configuration.

    Attributes:
        scale: standard deviation of the perturbation of the weights.
        pixels: inputs are values in 0..255 (not whole numbers) instead of standard normal ones.
        continuous: an ODE is solved, so tolerances are the solver's.
        quadrature: error of values that are integrals by quadrature, whose log-dets are exact.
    """

    family: str
    config: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 0.2
    pixels: bool = False
    continuous: bool = False
    quadrature: float = 0.0

    @property
    def features(self) -> int:
        """D, read off the configuration."""
        return math.prod(self.config.get("event_shape", (self.config.get("features", 0),)))


# Continuous flows are held to 1e-6, so their solver must do better.
TIGHT = {"rtol": 1e-9, "atol": 1e-9}

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
    "nice": Case("nice", {"event_shape": [2], "num_couplings": 3, "widths": [8, 8]}),
    "nice_logistic_halves": Case(
        "nice",
        {
            "event_shape": [5],
            "num_couplings": 2,
            "masks": "half",
            "widths": [6],
            "activation": "leaky_relu",
            "negative_slope": 0.2,
            "base": "logistic",
        },
    ),
    "nice_image": Case(
        "nice",
        {
            "event_shape": [1, 2, 3],
            "num_couplings": 2,
            "masks": [[1, 1, 1, 0, 0, 1], [0, 0, 0, 1, 1, 0]],
            "widths": [5],
            "preprocessing": [
                {"kind": "dequantise"},
                {"kind": "shift_scale", "scale": 0.00390625},
            ],
        },
        pixels=True,
    ),
    "realnvp": Case(
        "realnvp", {"event_shape": [2], "conditioner": {"kind": "mlp", "widths": [8, 8]}}
    ),
    "realnvp_pair_batch_norm": Case(
        "realnvp",
        {
            "event_shape": [5],
            "num_layers": 2,
            "scale": "exp",
            "form": "unshift_then_unscale",
            "batch_norm": {"kind": "batch_norm", "eps": 1e-3},
            "base": "learned",
            "conditioner": {
                "kind": "pair",
                "shift": {"kind": "mlp", "widths": [6, 5], "activation": ["elu", "selu"]},
                "scale": {"kind": "mlp", "widths": [6], "activation": ["gelu", "tanh"]},
            },
            "preprocessing": [
                {"kind": "standardise", "mean": [0.1, 0, 0, 0, 0.2], "std": [1, 2, 1, 1, 0.5]}
            ],
        },
    ),
    "realnvp_discrete_columns": Case(
        "realnvp",
        {
            "event_shape": [3],
            "num_layers": 2,
            "conditioner": {"kind": "mlp", "widths": [6]},
            "preprocessing": [
                {"kind": "dequantise_columns", "columns": [0, 2]},
                {"kind": "standardise", "mean": [0.5, 0, 1.5], "std": [0.6, 1, 1.2]},
            ],
        },
    ),
    "realnvp_resnet_context": Case(
        "realnvp",
        {
            "event_shape": [4],
            "num_layers": 2,
            "context_features": 3,
            "scale": "floored_sigmoid",
            "masks": [[1, 1, 0, 0], [0, 1, 1, 1]],
            "permutation": "shuffle",
            "final_mixing": True,
            "batch_norm": {"kind": "batch_norm", "scale": "softplus"},
            "base": "conditional",
            "conditioner": {
                "kind": "resnet",
                "widths": [6, 6],
                "activation": "silu",
                "batch_norm": True,
            },
        },
    ),
    "realnvp_classes_linear": Case(
        "realnvp",
        {
            "event_shape": [4],
            "num_layers": 2,
            "num_classes": 3,
            "scale": "sigmoid",
            "form": "shift_then_scale",
            "masks": "half",
            "actnorm": {"kind": "actnorm", "form": "scale_then_shift", "storage": "direct"},
            "permutation": "reverse",
            "linear": {"kind": "linear", "matrix": "plain", "bias": False},
            "conditioner": {
                "kind": "resnet",
                "widths": [6, 4],
                "activation": "softplus",
                "pre_activation": False,
                "context_mode": "concatenate",
            },
        },
    ),
    "realnvp_additive_qr": Case(
        "realnvp",
        {
            "event_shape": [3],
            "num_layers": 2,
            "coupling": "additive",
            "linear": {"kind": "linear", "matrix": "qr", "num_reflections": 2},
            "conditioner": {"kind": "mlp", "widths": [6], "activation": "sigmoid"},
        },
    ),
    "chain_householder": Case(
        "chain",
        {
            "event_shape": [3],
            "layers": [
                {"kind": "linear", "matrix": "svd", "num_reflections": 2},
                {
                    "kind": "coupling",
                    "mask": [1, 0, 1],
                    "conditioner": {"kind": "mlp", "widths": [4]},
                },
                {"kind": "linear", "matrix": "householder", "bias": False},
                {
                    "kind": "coupling",
                    "mask": [0, 1, 1],
                    "conditioner": {"kind": "mlp", "widths": [4]},
                },
                {"kind": "linear", "matrix": "svd", "diagonal": "exp", "bias": False},
            ],
        },
    ),
    "realnvp_soft_clamp": Case(
        "realnvp",
        {
            "event_shape": [4],
            "num_layers": 2,
            "context_features": 2,
            "scale": "soft_clamp",
            "conditioner": {"kind": "mlp", "widths": [6, 6], "normalise": True},
        },
    ),
    "realnvp_embedded_context": Case(
        "realnvp",
        {
            "event_shape": [4],
            "num_layers": 2,
            "context_features": 3,
            "context_embedding": [
                {"kind": "standardise"},
                {"kind": "linear", "width": 5},
                {"kind": "activation", "name": "tanh"},
                {"kind": "layer_norm"},
                {"kind": "linear", "width": 2, "bias": False},
                {"kind": "activation", "name": "leaky_relu", "negative_slope": 0.1},
            ],
            "conditioner": {"kind": "mlp", "widths": [6]},
        },
    ),
    "chain_bounded_and_centred": Case(
        "chain",
        {
            "event_shape": [4],
            "layers": [
                {
                    "kind": "coupling",
                    "mask": [1, 0, 1, 0],
                    "elementwise": {"kind": "affine", "scale": "atan", "centred": True},
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {
                    "kind": "coupling",
                    "mask": [0, 1, 0, 0],
                    "elementwise": {"kind": "affine", "scale": "tanh", "centred": True},
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {
                    "kind": "pointwise",
                    "chosen": [0, 2, 3],
                    "elementwise": {"kind": "affine", "scale": "tanh", "centred": True},
                },
            ],
        },
    ),
    "chain_sums_of_squares": Case(
        "chain",
        {
            "event_shape": [2],
            "layers": [
                {
                    "kind": "autoregressive",
                    "order": [0, 1],
                    "elementwise": {"kind": "sum_of_squares", "degree": 2, "polynomials": 2},
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {"kind": "soft_clip", "bound": 20.0},
                {
                    "kind": "autoregressive",
                    "order": [1, 0],
                    "elementwise": {
                        "kind": "sum_of_squares",
                        "degree": 1,
                        "polynomials": 1,
                        "min_slope": 0.1,
                        "scale": 2.0,
                    },
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
            ],
        },
    ),
    "chain_bernstein": Case(
        "chain",
        {
            "event_shape": [3],
            "context_features": 2,
            "layers": [
                {
                    "kind": "coupling",
                    "mask": [1, 0, 1],
                    "elementwise": {"kind": "bernstein", "degree": 5, "bound": 4.0},
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {"kind": "pointwise", "chosen": [0, 2], "elementwise": {"kind": "bernstein"}},
            ],
        },
    ),
    "chain_mixtures": Case(
        "chain",
        {
            "event_shape": [2],
            "layers": [
                {"kind": "gaussian_mixture", "components": 2, "offset": 0.01},
            ],
        },
    ),
    "chain_mixtures_context": Case(
        "chain",
        {
            "event_shape": [2],
            "context_features": 2,
            "layers": [
                {
                    "kind": "autoregressive",
                    "order": [1, 0],
                    "elementwise": {
                        "kind": "normal_mixture",
                        "components": 2,
                        "deviation": "softplus",
                        "offset": 0.01,
                    },
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {"kind": "permute"},
                {
                    "kind": "gaussian_mixture",
                    "components": 2,
                    "factor": "precision",
                    "deviation": "inverse_softplus",
                    "offset": 0.1,
                    "network": {"kind": "mlp", "widths": [5]},
                },
            ],
        },
    ),
    "chain_monotone_networks": Case(
        "chain",
        {
            "event_shape": [3],
            "layers": [
                {
                    "kind": "autoregressive",
                    "order": [0, 1, 1],
                    "elementwise": {"kind": "monotone_network", "signal": 3, "widths": [4, 5]},
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {"kind": "permute", "indices": [2, 0, 1]},
                {
                    "kind": "autoregressive",
                    "order": [2, 1, 0],
                    "elementwise": {
                        "kind": "monotone_integral",
                        "signal": 2,
                        "widths": [4],
                        "activation": "tanh",
                    },
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
            ],
        },
        scale=0.1,
        quadrature=1e-7,
    ),
    "chain_circular": Case(
        "chain",
        {
            "event_shape": [4],
            "layers": [
                {
                    "kind": "coupling",
                    "mask": [1, 0, 0, 1],
                    "elementwise": {
                        "kind": "circular_spline",
                        "num_bins": 3,
                        "bound": [6.0, 5.0],
                        "circular": [0],
                    },
                    "conditioner": {
                        "kind": "periodic",
                        "angles": [1],
                        "bound": [7.0],
                        "mixes": True,
                        "net": {"kind": "resnet", "widths": [6]},
                    },
                },
                {"kind": "circular_shift", "chosen": [1, 3], "bound": [6.0, 7.0], "wraps": False},
                {
                    "kind": "autoregressive",
                    "order": [1, 0, 2, 1],
                    "elementwise": {
                        "kind": "circular_spline",
                        "num_bins": 2,
                        "bound": [5.0, 6.0, 5.0, 7.0],
                        "bounds": "soft_clamp",
                        "circular": [1, 3],
                        "ends": "unit",
                        "half_turn": True,
                    },
                    "conditioner": {
                        "kind": "periodic",
                        "angles": [1, 3],
                        "bound": [6.0, 7.0],
                        "net": {"kind": "mlp", "widths": [6]},
                    },
                },
                {"kind": "uniform", "chosen": [1, 3], "low": [-6.0, -7.0], "high": [6.0, 7.0]},
            ],
        },
        scale=0.4,
    ),
    "chain_gaussianization": Case(
        "chain",
        {
            "event_shape": [3],
            "layers": [
                {
                    "kind": "pointwise",
                    "chosen": [0, 1, 2],
                    "elementwise": {"kind": "gaussianization", "components": 2, "margin": 1e-12},
                },
            ],
        },
    ),
    "chain_uniform_base": Case(
        "chain",
        {
            "event_shape": [3],
            "layers": [
                {
                    "kind": "coupling",
                    "mask": [1, 0, 0],
                    "conditioner": {"kind": "mlp", "widths": [4], "activation": "tanh"},
                },
                {"kind": "uniform", "chosen": [0, 2], "low": [-5.0, -7.0], "high": [6.0]},
            ],
        },
    ),
    "naf": Case(
        "naf",
        {
            "event_shape": [2],
            "num_layers": 2,
            "map": {"kind": "monotone_network", "signal": 2, "widths": [4]},
            "conditioner": {"kind": "mlp", "widths": [6]},
        },
    ),
    "naf_squares_context": Case(
        "naf",
        {
            "event_shape": [3],
            "num_layers": 2,
            "context_features": 2,
            "map": {"kind": "sum_of_squares", "degree": 1, "polynomials": 2},
            "soft_clip": 20.0,
            "order": "ascending",
            "passes": 2,
            "linear": {"kind": "linear", "matrix": "householder"},
            "conditioner": {"kind": "resnet", "widths": [6]},
        },
    ),
    "chain_positive_beta_base": Case(
        "chain",
        {
            "event_shape": [2],
            "preprocessing": [
                {"kind": "shift_scale", "shift": 9.0},
                {"kind": "inverse_softplus", "columns": [1], "sharpness": [0.5]},
                {"kind": "shift_scale", "shift": -9.0},
            ],
            "layers": [
                {
                    "kind": "coupling",
                    "mask": [0, 1],
                    "elementwise": {
                        "kind": "spline",
                        "num_bins": 3,
                        "min_bin": 0.0,
                        "min_slope": 0.0,
                    },
                    "conditioner": {"kind": "mlp", "widths": [4], "activation": "tanh"},
                },
                {
                    "kind": "beta",
                    "chosen": [0, 1],
                    "low": [-6.0, -7.0],
                    "high": [6.5],
                    "exponent": 3,
                },
            ],
        },
    ),
    "maf": Case(
        "maf",
        {"event_shape": [2], "num_layers": 3, "conditioner": {"kind": "mlp", "widths": [6]}},
    ),
    "maf_one_feature": Case("maf", {"event_shape": [1], "num_layers": 1, "context_features": 2}),
    "maf_resnet_added_context": Case(
        "maf",
        {
            "event_shape": [4],
            "num_layers": 2,
            "context_features": 2,
            "scale": "floored_softplus",
            "form": "scale_then_shift",
            "order": "ascending",
            "permutation": "shuffle",
            "batch_norm": {"kind": "batch_norm", "scale": "softplus"},
            "conditioner": {"kind": "resnet", "widths": [9, 9], "context_mode": "add"},
        },
    ),
    "maf_mlp_classes": Case(
        "maf",
        {
            "event_shape": [3],
            "num_layers": 2,
            "num_classes": 3,
            "scale": "tanh",
            "order": [[1, 0, 2], [2, 1, 0]],
            "permutation": "reverse",
            "conditioner": {
                "kind": "mlp",
                "widths": [8, 6],
                "activation": "tanh",
                "context_mode": "add",
            },
        },
    ),
    "maf_two_passes_pair": Case(
        "maf",
        {
            "event_shape": [5],
            "num_layers": 2,
            "scale": "soft_clamp",
            "form": "scale_then_shift",
            "passes": 2,
            "actnorm": {"kind": "actnorm"},
            "linear": {"kind": "linear", "diagonal": "exp"},
            "conditioner": {"kind": "pair"},
        },
    ),
    "iaf": Case(
        "maf",
        {
            "event_shape": [3],
            "num_layers": 2,
            "context_features": 2,
            "one_pass": "decode",
            "scale": "floored_sigmoid",
            "form": "scale_then_shift",
            "conditioner": {"kind": "resnet", "widths": [8, 10], "batch_norm": True},
        },
    ),
    "iaf_jacobi": Case(
        "iaf",
        {
            "event_shape": [2],
            "num_layers": 2,
            "decoding": "jacobi",
            "conditioner": {"kind": "mlp", "widths": [6]},
        },
    ),
    "maf_jacobi_context": Case(
        "maf",
        {
            "event_shape": [4],
            "num_layers": 2,
            "context_features": 2,
            "scale": "tanh",
            "decoding": "jacobi",
            "conditioner": {"kind": "mlp", "widths": [8]},
        },
    ),
    "nsf": Case(
        "nsf",
        {
            "event_shape": [2],
            "num_layers": 2,
            "num_bins": 5,
            "divide_by_sqrt_width": True,
            "conditioner": {"kind": "resnet", "widths": [8]},
        },
        scale=0.4,
    ),
    "nsf_unconditional_mixing": Case(
        "nsf",
        {
            "event_shape": [5],
            "num_layers": 2,
            "num_bins": 4,
            "min_bin": 0.01,
            "min_slope": 0.05,
            "masks": "half",
            "unconditional": True,
            "actnorm": {"kind": "actnorm", "form": "scale_then_shift"},
            "permutation": "shuffle",
            "linear": {"kind": "linear"},
            "final_mixing": True,
            "conditioner": {"kind": "resnet", "widths": [8]},
        },
        scale=0.4,
    ),
    "nsf_autoregressive": Case(
        "nsf",
        {
            "event_shape": [2],
            "num_layers": 2,
            "structure": "autoregressive",
            "num_bins": 4,
            "bound": 5.0,
            "bounds": "soft_clamp",
            "conditioner": {"kind": "mlp", "widths": [8]},
        },
        scale=0.4,
    ),
    "nsf_autoregressive_context": Case(
        "nsf",
        {
            "event_shape": [4],
            "num_layers": 2,
            "structure": "autoregressive",
            "order": "ascending",
            "passes": 3,
            "num_bins": 2,
            "context_features": 2,
            "context_embedding": [{"kind": "linear", "width": 3}],
            "base": "conditional",
            "conditioner": {"kind": "resnet", "widths": [6, 8], "context_mode": "gate"},
        },
        scale=0.4,
    ),
    "nsf_circular": Case(
        "nsf",
        {
            "event_shape": [3],
            "num_layers": 2,
            "num_bins": 3,
            "masks": [[1, 0, 0], [0, 0, 1]],
            "unconditional": True,
            "circular": [0, 2],
            "conditioner": {"kind": "mlp", "widths": [6]},
        },
        scale=0.4,
    ),
    "gf_context": Case(
        "gf",
        {
            "event_shape": [3],
            "num_layers": 1,
            "components": 2,
            "context_features": 2,
            "conditioner": {"kind": "mlp", "widths": [4]},
        },
    ),
    "chain": Case(
        "chain",
        {
            "event_shape": [2, 2],
            "layers": [
                {
                    "kind": "autoregressive",
                    "order": [2, 0, 1, 0],
                    "elementwise": {"kind": "spline", "num_bins": 3, "divisor": 2.0},
                    "conditioner": {"kind": "mlp", "widths": [6], "activation": "identity"},
                },
                {"kind": "permute", "indices": [2, 0, 3, 1]},
                {"kind": "pointwise", "chosen": [0, 2], "elementwise": {"kind": "affine"}},
                {"kind": "pointwise", "chosen": [1], "elementwise": {"kind": "additive"}},
                {
                    "kind": "autoregressive",
                    "order": [0, 1, 1, 2],
                    "elementwise": {"kind": "additive"},
                    "conditioner": {"kind": "mlp", "widths": [6]},
                },
                {"kind": "batch_norm", "statistics": "running", "momentum": 0.5, "eps": 0.0},
                {"kind": "scale"},
                {"kind": "gaussian"},
                {"kind": "logistic"},
            ],
        },
    ),
    "planar": Case("planar", {"event_shape": [2], "num_layers": 3}, scale=0.3),
    "planar_leaky": Case(
        "planar",
        {
            "event_shape": [2],
            "num_layers": 3,
            "activation": "leaky_relu",
            "negative_slope": 0.2,
            "formula": "decode",
            "actnorm": {"kind": "actnorm"},
        },
        scale=0.3,
    ),
    "planar_from_latents": Case(
        "planar",
        {
            "event_shape": [3],
            "num_layers": 2,
            "context_features": 2,
            "formula": "decode",
            "linear": {"kind": "linear"},
            "base": "conditional",
        },
        scale=0.3,
    ),
    "radial": Case("radial", {"event_shape": [2], "num_layers": 3}, scale=0.3),
    "radial_from_latents": Case(
        "radial",
        {
            "event_shape": [3],
            "num_layers": 2,
            "formula": "decode",
            "batch_norm": {"kind": "batch_norm"},
        },
        scale=0.3,
    ),
    "ffjord": Case(
        "ffjord",
        {"event_shape": [2], "hidden_features": [6], "end_time": 0.5, "solver": TIGHT},
        continuous=True,
    ),
    "ffjord_stack": Case(
        "ffjord",
        {
            "event_shape": [3],
            "hidden_features": [5, 4],
            "layer_type": "concat",
            "nonlinearity": "softplus",
            "residual": True,
            "num_blocks": 2,
            "learn_end_time": True,
            "batch_norm": True,
            "solver": TIGHT,
            "training": {"gradient": "direct"},
            "preprocessing": [{"kind": "standardise", "mean": [0.5], "std": [2.0]}],
        },
        continuous=True,
    ),
    "ffjord_fourier_context": Case(
        "ffjord",
        {
            "event_shape": [3],
            "context_features": 2,
            "hidden_features": [5, 4],
            "layer_type": "ignore",
            "nonlinearity": "swish",
            "time_input": "fourier",
            "num_frequencies": 2,
            "solver": TIGHT,
            "training": {"rtol": 1e-4, "atol": 1e-4},
        },
        continuous=True,
    ),
    "ffjord_flow_matching_classes": Case(
        "ffjord",
        {
            "event_shape": [1, 3],
            "num_classes": 3,
            "hidden_features": [5, 4, 5],
            "layer_type": "ignore",
            "time_input": "last",
            "data_time": "end",
            "solver": TIGHT,
            "divergence": {"training": "hutchinson", "noise": "gaussian"},
        },
        continuous=True,
    ),
    "ffjord_squash": Case(
        "ffjord",
        {
            "event_shape": [3],
            "hidden_features": [4],
            "layer_type": "squash",
            "end_time": 0.5,
            "solver": TIGHT,
        },
        continuous=True,
    ),
    "ffjord_blend": Case(
        "ffjord",
        {"event_shape": [3], "hidden_features": [4, 4], "layer_type": "blend", "solver": TIGHT},
        continuous=True,
    ),
    "ffjord_hyper": Case(
        "ffjord",
        {"event_shape": [3], "hidden_features": [4], "layer_type": "hyper", "solver": TIGHT},
        continuous=True,
    ),
    "ffjord_image": Case(
        "ffjord_image",
        {
            "event_shape": [1, 4, 4],
            "num_scales": 2,
            "hidden_channels": [2],
            "solver": TIGHT,
            "preprocessing": [
                {"kind": "dequantise"},
                {"kind": "shift_scale", "scale": 0.00390625},
                {"kind": "logit", "alpha": 0.05},
            ],
        },
        scale=0.1,
        pixels=True,
        continuous=True,
    ),
    "ffjord_image_strides": Case(
        "ffjord_image",
        {
            "event_shape": [1, 4, 4],
            "hidden_channels": [2],
            "strides": [2, -2],
            "layer_type": "concatsquash",
            "batch_norm": True,
            "divergence": {"training": "hutchinson"},
            "solver": TIGHT,
        },
        continuous=True,
    ),
    "cnf_unet": Case(
        "cnf_unet",
        {
            "event_shape": [1, 2, 2],
            "hidden_channels": [4],
            "num_residual_blocks": 0,
            "num_groups": 2,
            "time_features": 3,
            "num_heads": 2,
            "scale_shift_norm": True,
            "num_classes": 2,
            "end_time": 0.5,
            "solver": TIGHT,
        },
        scale=0.1,
        continuous=True,
    ),
    "jet": Case(
        "jet",
        {
            "event_shape": [1, 4, 4],
            "patch_size": 2,
            "coupling_layers": 3,
            "coupling_types": ["channels", "spatial"],
            "block_depth": 1,
            "block_width": 4,
            "num_heads": 2,
        },
    ),
    "jet_pair": Case(
        "jet",
        {
            "event_shape": [2, 1, 1],
            "patch_size": 1,
            "coupling_layers": 2,
            "coupling_types": ["channels"],
            "block_depth": 1,
            "block_width": 4,
            "num_heads": 1,
            "scale_factor": 3.0,
            "patch_order": "channel_first",
        },
    ),
    "tarflow": Case(
        "tarflow",
        {
            "event_shape": [1, 4, 4],
            "patch_size": 2,
            "channels": 4,
            "num_blocks": 2,
            "layers_per_block": 2,
            "head_dim": 2,
            "num_classes": 3,
        },
    ),
    "tarflow_pair": Case(
        "tarflow",
        {
            "event_shape": [1, 1, 2],
            "patch_size": 1,
            "channels": 4,
            "num_blocks": 2,
            "layers_per_block": 1,
            "head_dim": 4,
            "decoding": "jacobi",
        },
    ),
    "tarflow_volume_preserving": Case(
        "tarflow",
        {
            "event_shape": [2, 2, 4],
            "patch_size": 2,
            "channels": 4,
            "num_blocks": 2,
            "layers_per_block": 1,
            "head_dim": 4,
            "nvp": False,
        },
    ),
    "pixelcnn": Case(
        "pixelcnn",
        {
            "event_shape": [2, 2, 2],
            "levels": 4,
            "width": 4,
            "num_layers": 1,
            "num_classes": 3,
            "decoding": "jacobi",
            "preprocessing": [{"kind": "shift_scale", "scale": 0.00390625}],
        },
        pixels=True,
    ),
    "pixelcnn_series": Case(
        "pixelcnn",
        {
            "event_shape": [1, 1, 4],
            "levels": 3,
            "width": 8,
            "num_layers": 2,
            "dilations": [1, 2],
            "decoding": "passes",
            "preprocessing": [{"kind": "shift_scale", "scale": 0.00390625}],
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

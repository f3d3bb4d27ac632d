"""The base distributions of normflows over vectors, as layers of the `chain` family."""

import re
from dataclasses import dataclass
from typing import Protocol

import torch

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.mixtures import Mixture
from models.importers.layouts.nsf_parts import encoded_gaussian
from models.importers.report import ImportRefused
from models.importers.weights import Weights

# Logits of the weights of a mixture.
_MIXTURE = "q0.weight_scores"
# The uniform features of a UniformGaussian.
_UNIFORM = "q0.ind"
_ENCODER = r"q0\.context_encoder\.(net\.)?(\d+)\.weight"


@dataclass(frozen=True, slots=True)
class Base:
    """What a base takes.

    Attributes:
        num_classes: where it is conditional on a class.
        context: length of the context that its encoder takes.
        encoder: names of the encoder's linear layers.
        is_library_mlp: whether the encoder is a `nets.MLP`, whose activation is known.
        components: how many, of a mixture of Gaussians.
        is_uniform: whether some features of it are uniform.
    """

    num_classes: int | None = None
    context: int = 0
    encoder: tuple[str, ...] = ()
    is_library_mlp: bool = False
    components: int | None = None
    is_uniform: bool = False


def features(weights: Weights) -> int | None:
    """D, where a diagonal Gaussian base shows it."""
    if _UNIFORM in weights:
        return weights.shape("q0.scale")[0]
    if "q0.loc" in weights and weights.shape("q0.loc")[0] == 1:
        return weights.shape("q0.loc")[-1]
    return weights.shape("q0.transform.s")[-1] if "q0.transform.s" in weights else None


def recognise(weights: Weights, size: int) -> Base:
    """Find out which base the keys `q0.` belong to.

    Raises:
        ImportRefused: if it is none that can be imported.
    """
    if _MIXTURE in weights:
        return Base(components=weights.shape(_MIXTURE)[-1])
    if _UNIFORM in weights:
        return Base(is_uniform=True)
    if weights.has(r"q0\.(W|low|high|scale)"):
        raise ImportRefused(
            "q0: expected DiagGaussian, GaussianMixture, ClassCondDiagGaussian, AffineGaussian, "
            "ConditionalDiagGaussian or UniformGaussian; a GaussianPCA or Uniform base cannot be "
            "imported"
        )
    if "q0.transform.s_cc" in weights:
        return Base(num_classes=weights.shape("q0.transform.s_cc")[0])
    if "q0.loc" in weights:
        is_plain = weights.shape("q0.loc") == (1, size)
        return Base(num_classes=None if is_plain else weights.shape("q0.loc")[-1])
    layers = _encoder(weights)
    if not layers:
        return Base()
    return Base(
        context=weights.shape(f"{layers[0]}.weight")[1],
        encoder=layers,
        is_library_mlp=".net." in layers[0],
    )


class Arguments(Protocol):
    """Arguments of a base's encoder, read where they are used."""

    @property
    def leaky(self) -> float:
        """Slope of nets.MLP."""

    @property
    def encoder_activation(self) -> str:
        """Of an encoder that is no nets.MLP."""


def convert(weights: Weights, size: int, given: Arguments) -> list[Part]:
    """Turn the base into a layer, unless it is the standard normal."""
    if "q0.transform.s" in weights:
        return [_affine(weights, size)]
    if _MIXTURE in weights:
        return [_mixture(weights, size)]
    if _UNIFORM in weights:
        return _uniform(weights, size)
    if "q0.loc" in weights:
        return _diagonal(weights, size)
    layers = _encoder(weights)
    if not layers:
        return []
    if len(layers) == 1:
        return [encoded_gaussian(weights, list(layers), size, "identity")]
    if ".net." in layers[0]:
        leaky = given.leaky
        options = {"negative_slope": leaky} if leaky else {}
        activation = "leaky_relu" if leaky else "relu"
        return [encoded_gaussian(weights, list(layers), size, activation, **options)]
    return [encoded_gaussian(weights, list(layers), size, given.encoder_activation)]


def _encoder(weights: Weights) -> tuple[str, ...]:
    if "q0.context_encoder.weight" in weights:
        return ("q0.context_encoder",)
    found = [match for key in weights.under("q0.") if (match := re.fullmatch(_ENCODER, key))]
    ordered = sorted(found, key=lambda match: int(match.group(2)))
    return tuple(match.group(0).removesuffix(".weight") for match in ordered)


def _diagonal(weights: Weights, size: int) -> list[Part]:
    if weights.shape("q0.loc") == (1, size):
        mean = weights.take("q0.loc", 1, size)[0]
        log_std = weights.take("q0.log_scale", 1, size)[0]
        if chain_layers.is_standard(mean, log_std):
            return []
        return [chain_layers.gaussian(mean, log_std)]
    classes = weights.shape("q0.loc")[-1]
    of_class = (
        weights.take("q0.loc", size, classes).T,
        weights.take("q0.log_scale", size, classes).T,
    )
    zeros = of_class[0].new_zeros(size)
    return [chain_layers.gaussian(zeros, zeros, of_class)]


def _uniform(weights: Weights, size: int) -> list[Part]:
    """A UniformGaussian: of the features in ind scale is the width, of the others the deviation."""
    weights.skip(r"q0\.(ind_|inv_perm)", "the other features")
    chosen = weights.take_integers(_UNIFORM, *weights.shape(_UNIFORM)).sort().values
    scale = weights.take("q0.scale", size)
    half = scale[chosen] / 2
    log_std = scale.log()
    log_std[chosen] = 0.0
    mean = torch.zeros_like(log_std)
    parts = (
        [] if chain_layers.is_standard(mean, log_std) else [chain_layers.gaussian(mean, log_std)]
    )
    return [*parts, chain_layers.uniform(chosen.tolist(), -half, half)] if len(chosen) else parts


def _mixture(weights: Weights, size: int) -> Part:
    """A GaussianMixture: K Gaussians with variances of their own."""
    count = weights.shape(_MIXTURE)[-1]
    logits = weights.take(_MIXTURE, 1, count)[0]
    means, log_stds = (weights.take(f"q0.{key}", 1, count, size)[0] for key in ("loc", "log_scale"))
    return Mixture(size, count, is_full=False, options={}).constant(logits, means, log_stds, None)


def _affine(weights: Weights, size: int) -> Part:
    mean = weights.take("q0.transform.t", 1, size)[0]
    log_std = weights.take("q0.transform.s", 1, size)[0]
    if "q0.transform.s_cc" not in weights:
        return chain_layers.gaussian(mean, log_std)
    classes = weights.shape("q0.transform.s_cc")[0]
    of_class = (
        weights.take("q0.transform.t_cc", classes, size),
        weights.take("q0.transform.s_cc", classes, size),
    )
    return chain_layers.gaussian(mean, log_std, of_class)

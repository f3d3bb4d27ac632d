"""The `conditioner` argument of families over vectors: which network computes the parameters.

The same description makes a dense network for a coupling and a masked one for an autoregressive
map; the wiring decides.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from models.conditioners.activations import Activation
from models.conditioners.dense import MLP, ContextMode, Pair, ResNet, Wiring
from models.families.config import MOST_REPEATS, FamilyConfig, PositiveInt, UnitFloat

HiddenWidths = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=MOST_REPEATS)]


class MLPConfig(FamilyConfig):
    """Linear layers with activations between; see `MLP`."""

    kind: Literal["mlp"] = "mlp"
    widths: HiddenWidths = (64, 64)
    activation: Activation | tuple[Activation, ...] = "relu"
    negative_slope: UnitFloat = 0.01
    context_mode: Literal["concatenate", "add"] = "concatenate"
    normalise: bool = False


class ResNetConfig(FamilyConfig):
    """One residual block a width; see `ResNet`."""

    kind: Literal["resnet"] = "resnet"
    widths: HiddenWidths = (64, 64)
    activation: Activation = "relu"
    negative_slope: UnitFloat = 0.01
    pre_activation: bool = True
    batch_norm: bool = False
    context_mode: ContextMode = "gate"


class PairConfig(FamilyConfig):
    """Two networks, for shift and scale of an affine map; see `Pair`."""

    kind: Literal["pair"] = "pair"
    shift: MLPConfig = MLPConfig(activation="relu")
    scale: MLPConfig = MLPConfig(activation="tanh")


NetConfig = Annotated[MLPConfig | ResNetConfig, Field(discriminator="kind")]
ConditionerConfig = Annotated[MLPConfig | ResNetConfig | PairConfig, Field(discriminator="kind")]


def build_conditioner(
    config: ConditionerConfig, wire: Callable[[int], Wiring], num_params: int
) -> nn.Module:
    """Build a network with `num_params` blocks of outputs.

    Args:
        config: which network.
        wire: gives the wiring of a network with that many blocks of outputs.
        num_params: of the scalar map.

    Raises:
        ValueError: if a pair of networks is asked for where there is no shift and scale.
    """
    match config:
        case PairConfig():
            if num_params != 2:
                raise ValueError(
                    f"conditioner: a pair makes a shift and a scale, expected 2 parameters an "
                    f"element, got {num_params}; choose mlp or resnet"
                )
            return Pair(*(build_conditioner(net, wire, 1) for net in (config.shift, config.scale)))
        case MLPConfig():
            return MLP(
                wire(num_params),
                config.widths,
                config.activation,
                negative_slope=config.negative_slope,
                context_mode=config.context_mode,
                normalise=config.normalise,
            )
        case ResNetConfig():
            return ResNet(
                wire(num_params),
                config.widths,
                config.activation,
                negative_slope=config.negative_slope,
                pre_activation=config.pre_activation,
                batch_norm=config.batch_norm,
                context_mode=config.context_mode,
            )

"""The `conditioner` argument of families over vectors: which network computes the parameters.

The same description makes a dense network for a coupling and a masked one for an autoregressive
map; the wiring decides.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from models.conditioners.activations import Activation
from models.conditioners.dense import MLP, ContextMode, Pair, ResNet, Wiring
from models.conditioners.periodic import PeriodicInputs
from models.families.config import MOST_REPEATS, FamilyConfig, Index, PositiveInt
from models.families.options import CircleBounds, HiddenActivation, NegativeSlope

HiddenWidths = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=MOST_REPEATS)]


class MLPConfig(FamilyConfig):
    """Linear layers with activations between.

    See `MLP`.
    """

    kind: Literal["mlp"] = "mlp"
    widths: HiddenWidths = Field((64, 64), description="Of the hidden layers.")
    activation: Activation | tuple[Activation, ...] = Field(
        "relu",
        description="One for all hidden layers, or a list: one a hidden layer, or one more for "
        "the output.",
    )
    negative_slope: NegativeSlope = 0.01
    context_mode: Literal["concatenate", "add"] = Field(
        "concatenate",
        description="The context joins the inputs, or is added to the first hidden layer.",
    )
    normalise: bool = Field(
        False,
        description="Standardise each row of hidden units after its activation (zuko); not in "
        "autoregressive maps.",
    )


class ResNetConfig(FamilyConfig):
    """One residual block a width.

    See `ResNet`.
    """

    kind: Literal["resnet"] = "resnet"
    widths: HiddenWidths = Field((64, 64), description="Of the blocks.")
    activation: HiddenActivation = "relu"
    negative_slope: NegativeSlope = 0.01
    pre_activation: bool = Field(
        True, description="Activations stand before the linear layers of a block, not behind them."
    )
    batch_norm: bool = Field(False, description="Batch norms inside the blocks.")
    context_mode: ContextMode = Field(
        "gate",
        description="The context joins the inputs, gates what every block adds, is added, or joins "
        "the inputs and is added inside every block.",
    )


class PairConfig(FamilyConfig):
    """Two networks, for shift and scale of an affine map.

    See `Pair`.
    """

    kind: Literal["pair"] = "pair"
    shift: MLPConfig = Field(MLPConfig(activation="relu"), description="The network of the shift.")
    scale: MLPConfig = Field(MLPConfig(activation="tanh"), description="The network of the scale.")


NetConfig = Annotated[MLPConfig | ResNetConfig, Field(discriminator="kind")]


class PeriodicConfig(FamilyConfig):
    """A network that sees angles by their sine and cosine.

    See `PeriodicInputs`.
    """

    kind: Literal["periodic"] = "periodic"
    angles: tuple[Index, ...] = Field(
        min_length=1, description="Which inputs of the network are angles, from 0."
    )
    bound: CircleBounds = (math.pi,)
    mixes: bool = Field(
        False,
        description="w1 sin + w2 cos stands for an angle, with learned w, and not both numbers "
        "(normflows).",
    )
    net: NetConfig = Field(MLPConfig(), description="The network.")


ConditionerConfig = Annotated[
    MLPConfig | ResNetConfig | PairConfig | PeriodicConfig, Field(discriminator="kind")
]


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
        case PeriodicConfig():
            return _periodic(config, wire, num_params)
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


def _periodic(
    config: PeriodicConfig, wire: Callable[[int], Wiring], num_params: int
) -> PeriodicInputs:
    features = wire(num_params).in_features
    if max(config.angles) >= features:
        raise ValueError(f"angles: expected inputs below {features}, got {list(config.angles)}")

    def wire_angles(count: int) -> Wiring:
        return wire(count) if config.mixes else wire(count).with_more_of(config.angles)

    net = build_conditioner(config.net, wire_angles, num_params)
    return PeriodicInputs(features, config.angles, config.bound, net, mixes=config.mixes)

"""NICE: additive couplings and one learned scale a dimension."""

from typing import Literal

from models.conditioners.activations import Activation
from models.families.chain import VectorConfig, assemble
from models.families.config import Repeats, UnitFloat
from models.families.layers import AdditiveConfig, CouplingLayer, Layer, LogisticLayer, ScaleLayer
from models.families.nets import HiddenWidths, MLPConfig
from models.families.stack import Masks, make_masks
from models.flow import Flow


class NICEConfig(VectorConfig):
    """y_move = x_move + m(x_keep), `num_couplings` times; then z = exp(s) y.

    The couplings keep volume: log_det is sum(s) everywhere (without preprocessing and with a normal
    base). Images are flattened. The paper's networks: 5 x 1000 units for MNIST, 4 x 2000 for TFD
    and SVHN, ReLU, four couplings.

    Attributes:
        num_couplings: the paper finds that at least three are needed for all dimensions to meet.
        masks: which dimensions are kept, see `make_masks`.
        widths, activation, negative_slope: of the networks m.
        base: "normal", or the paper's "logistic", which is turned into the normal base of every
            flow here by an exact bijection, see `LogisticToNormal`.

    Reference: Dinh et al. 2014 (arXiv 1410.8516).
    """

    num_couplings: Repeats = 4
    masks: Masks = "alternating"
    widths: HiddenWidths = (1000, 1000, 1000, 1000, 1000)
    activation: Activation = "relu"
    negative_slope: UnitFloat = 0.01
    base: Literal["normal", "logistic"] = "normal"


def build_nice(config: NICEConfig) -> Flow:
    """Build a NICE flow.

    Raises:
        ValueError: if the preprocessing or a mask does not fit the event.
    """
    net = MLPConfig(
        widths=config.widths,
        activation=config.activation,
        negative_slope=config.negative_slope,
    )
    layers: list[Layer] = [
        CouplingLayer(mask=mask, elementwise=AdditiveConfig(), conditioner=net)
        for mask in make_masks(config.masks, config.features, config.num_couplings)
    ]
    layers.append(ScaleLayer())
    if config.base == "logistic":
        layers.append(LogisticLayer())
    return assemble(config, layers)

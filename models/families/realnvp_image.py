"""RealNVP for images: checkerboard and channel couplings at several scales."""

from typing import Self

from pydantic import Field, model_validator

from models.conditioners.conv import RealNVPResNet
from models.families.about import About, Example
from models.families.config import MOST_REPEATS, FamilyConfig, PositiveInt, Repeats
from models.families.costs import COSTS
from models.families.options import AffineScale, ImageShape, MapForm, OrderOfLatents
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.flow import Flow
from models.transforms.coupling import CheckerboardCoupling, Coupling, half_mask
from models.transforms.elementwise import Affine
from models.transforms.split import Chain, FactorOut
from models.transforms.squeeze import Flatten, Squeeze, Unsqueeze
from models.transforms.transform import Transform

REALNVP_IMAGE = About(
    what="checkerboard and channel-wise affine couplings, with residual networks",
    data="images",
    when="sides are odd (num_scales=1), or each latent should lie where its pixels were",
    cost=COSTS["realnvp_image"],
    example=Example(
        data="digits",
        event_shape=(1, 8, 8),
        arguments={"num_couplings": 2, "mid_channels": 16, "num_blocks": 2},
    ),
)


class RealNVPImageConfig(FamilyConfig):
    """RealNVP over images (C, H, W), H and W divisible by 2^(num_scales - 1).

    Every scale but the last: `num_couplings` checkerboard couplings, squeeze, as many channel-wise
    couplings, then half of the pixels (a checkerboard of them) is factored out. The last scale:
    num_couplings + 1 checkerboard couplings. Widths double from scale to scale.

    Reference: Dinh et al. 2017, sections 3.6 and 4.1 (arXiv 1605.08803).
    """

    event_shape: ImageShape
    num_scales: Repeats = Field(2, description="H and W must be divisible by 2^(num_scales - 1).")
    num_couplings: Repeats = Field(
        3, description="Checkerboard couplings a scale, and as many channel-wise ones."
    )
    mid_channels: PositiveInt = Field(
        64, description="Width of the residual networks at the first scale."
    )
    num_blocks: int = Field(
        8, ge=0, le=MOST_REPEATS, description="Residual blocks in each network."
    )
    scale: AffineScale = "tanh"
    form: MapForm = "scale_then_shift"
    latent_order: OrderOfLatents = "image"
    preprocessing: Preprocessing = ()

    @model_validator(mode="after")
    def _sides_divide(self) -> Self:
        check_sides(self.event_shape, self.num_scales - 1, "num_scales - 1")
        if self.event_shape[1] * self.event_shape[2] < 2 * 4 ** (self.num_scales - 1):
            raise ValueError("event_shape: expected at least 2 pixels at the last scale")
        return self


def check_sides(
    event_shape: ImageShape, halvings: int, name: str, advice: str | None = None
) -> None:
    """Make sure that an image can be halved so many times.

    Args:
        event_shape: of the image.
        halvings: how many.
        name: what says so, in the terms of the configuration.
        advice: how to have fewer; left out, to lower the first word of the name.

    Raises:
        ValueError: if height or width is not divisible by 2^halvings.
    """
    _, height, width = event_shape
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"event_shape: expected height and width divisible by 2^({name}) = {2**halvings}, "
            f"got {height} x {width}; resize or pad the images (?size=HxW of a folder, ?pad=N of "
            f"idx files), or {advice or 'lower ' + name.split()[0]}"
        )


def build_realnvp_image(config: RealNVPImageConfig) -> Flow:
    """Build RealNVP for images.

    Raises:
        ValueError: if the preprocessing does not fit the event.
    """
    preprocessing, facts = build_preprocessing(config.preprocessing, config.event_shape)
    transforms = [*preprocessing, *_scale(config, config.event_shape, config.num_scales)]
    if config.latent_order == "image":
        transforms.append(Flatten(config.event_shape))
    return Flow(transforms, config.event_shape, facts=facts)


def _scale(config: RealNVPImageConfig, shape: ImageShape, remaining: int) -> list[Transform]:
    """Build one scale and, inside its `FactorOut`, all that follow."""
    channels, height, width = shape
    mid_channels = config.mid_channels * 2 ** (config.num_scales - remaining)
    is_image = config.latent_order == "image"
    if remaining == 1:
        couplings = [
            _checkerboard(config, channels, mid_channels, index % 2)
            for index in range(config.num_couplings + 1)
        ]
        return [*couplings, *([] if is_image else [Flatten(shape)])]
    rest = Chain(_scale(config, (2 * channels, height // 2, width // 2), remaining - 1))
    return [
        *(
            _checkerboard(config, channels, mid_channels, index % 2)
            for index in range(config.num_couplings)
        ),
        Squeeze("channel"),
        *(
            _channel_wise(config, 4 * channels, 2 * mid_channels, index % 2)
            for index in range(config.num_couplings)
        ),
        Unsqueeze("channel"),
        Squeeze("checkerboard"),
        FactorOut(rest, (4 * channels, height // 2, width // 2), order=config.latent_order),
        *([Unsqueeze("checkerboard")] if is_image else []),
    ]


def _checkerboard(
    config: RealNVPImageConfig, channels: int, mid_channels: int, parity: int
) -> Transform:
    net = RealNVPResNet(
        channels, 2 * channels, mid_channels, num_blocks=config.num_blocks, double_input=True
    )
    affine = Affine(config.scale, config.form, weight_shape=(channels, 1, 1))
    return CheckerboardCoupling(parity, net, affine)


def _channel_wise(
    config: RealNVPImageConfig, channels: int, mid_channels: int, parity: int
) -> Transform:
    half = channels // 2
    net = RealNVPResNet(half, 2 * half, mid_channels, num_blocks=config.num_blocks)
    affine = Affine(config.scale, config.form, weight_shape=(half, 1, 1))
    return Coupling(half_mask(channels, keep_first=parity == 1), net, affine)

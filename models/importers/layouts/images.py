"""What sources of images share: their sizes, and the way from pixels to their inputs."""

import math
from typing import Annotated, Any

from pydantic import Field

from models.importers.likelihood import Reported, Term
from models.importers.source import Count, Step

ImageSize = Count | tuple[Count, Count]
Bits = Annotated[int, Field(ge=1, le=8)]

BITS = "1 to 8; the number the model was trained with, 8 for ordinary images"


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image whose size is one number or two."""
    return (size, size) if isinstance(size, int) else size


def multiples(halvings: int) -> str:
    """Which sizes can be halved so many times, in words."""
    unit = 2**halvings
    return f"a multiple of {unit} ({', '.join(str(unit * k) for k in (1, 2, 4, 8))}, ...)"


def pixel_steps(*, levels: float = 256.0, shift: float = 0.0, bits: int = 8) -> tuple[Step, ...]:
    """From pixels 0..255 to x = pixels / levels + shift, noise over one bin included.

    With fewer bits, pixels are first floored to 2^bits values, as the sources do.
    """
    reduce: list[dict[str, Any]] = [{"kind": "reduce_bits", "bits": bits}] if bits < 8 else []
    scale = {"kind": "shift_scale", "scale": 1 / levels, "shift": shift}
    return (*reduce, {"kind": "dequantise"}, scale)


def dequantisation(noise: str = "uniform noise over one bin") -> Term:
    """The term without a number: noise there, midpoints here."""
    return Term(
        "dequantisation",
        0.0,
        f"the source adds {noise}, so its numbers vary from call to call; ours scores midpoints",
    )


def reported_bits(features: int, half_levels: float, *, where: str, note: str) -> Reported:
    """Bits per dimension as sources with pixels on (-1, 1) report them.

    Args:
        features: values of an image.
        half_levels: by what the pixels are divided.
        where: the source reports them.
        note: what it says of the width of its bins.
    """
    bins = Term("bins", -features * math.log(half_levels), note)
    return Reported(
        f"bits per dimension of {where}",
        (bins, dequantisation("uniform noise over one level")),
        factor=-1 / (math.log(2) * features),
    )


def log_det(steps: tuple[Step, ...], features: int) -> float:
    """log|det| of constant preprocessing steps, in nats an event."""
    return features * math.fsum(
        math.log(abs(step.get("scale", 1.0))) for step in steps if step["kind"] == "shift_scale"
    )

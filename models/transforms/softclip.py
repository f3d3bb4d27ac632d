"""A smooth bound on values, between maps that are inverted on an interval."""

from torch import Tensor

from models.transforms.transform import Transform, sum_event


class SoftClip(Transform):
    """y = x / (1 + |x / B|), element by element: the line onto (-B, B).

    Latents beyond B have no data: decode gives infinities for them.

    Args:
        bound: B.

    Reference: zuko's SoftclipTransform, which stands between the maps of NAF, UNAF and SOSPF.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        growth = 1 + (x / self.bound).abs()
        return x / growth, -2 * sum_event(growth.log())

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # Beyond the bound 1 - |y / B| is negative, and no x is meant.
        room = (1 - (y / self.bound).abs()).clamp(min=0)
        return y / room, -2 * sum_event(room.log())

"""Planar and radial maps as inference wants them: what does not depend on the row is a constant."""

from torch import Tensor

from models.monotone.planar import PlanarMap, Plane
from models.transforms.radial import Centre, RadialMap


class FoldedPlanar(PlanarMap):
    """A planar map whose u is computed ahead."""

    u: Tensor
    w: Tensor
    b: Tensor
    steepness: Tensor

    def __init__(self, planar: PlanarMap) -> None:
        super().__init__(planar.activation, planar.negative_slope)
        for name, value in planar.plane()._asdict().items():
            self.register_buffer(name, value)

    def plane(self) -> Plane:
        return Plane(self.u, self.w, self.b, self.steepness)


class FoldedRadial(RadialMap):
    """A radial map whose reach and pull are computed ahead."""

    point: Tensor
    reach: Tensor
    pull: Tensor

    def __init__(self, radial: RadialMap) -> None:
        super().__init__()
        for name, value in radial.centre()._asdict().items():
            self.register_buffer(name, value)

    def centre(self) -> Centre:
        return Centre(self.point, self.reach, self.pull)

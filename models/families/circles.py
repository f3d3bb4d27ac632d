"""What a neural spline flow does for circular features: angles in radians, in [-pi, pi].

Their splines close, the networks see their sine and cosine, half a turn behind every map brings
other angles to the splines' ends, and their base is uniform.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch

from models.families.circular import CircularShiftLayer, CircularSplineConfig
from models.families.layers import Layer, SplineConfig, UniformLayer
from models.families.nets import NetConfig, PeriodicConfig
from models.families.stack import StackConfig
from models.flow import Flow, Support


def check_circles(config: StackConfig, circular: Sequence[int]) -> None:
    """Refuse what would tear circles open.

    Raises:
        ValueError: names the argument.
    """
    if not circular:
        return
    if sorted(set(circular)) != list(circular) or circular[-1] >= config.features:
        raise ValueError(
            f"circular: expected ascending features below {config.features}, got {list(circular)}"
        )
    given = {
        "actnorm": config.actnorm is not None,
        "permutation": config.permutation != "none",
        "linear": config.linear is not None,
        "batch_norm": config.batch_norm is not None,
        "base": config.base != "normal",
    }
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: expected the default beside circular features: angles are "
            "neither scaled nor mixed with others, and their base is uniform"
        )


def closed(
    spline: SplineConfig, circular: Sequence[int], chosen: Sequence[int]
) -> SplineConfig | CircularSplineConfig:
    """The splines of the chosen features, of which some may be circular."""
    turning = tuple(place for place, feature in enumerate(chosen) if feature in circular)
    if not turning:
        return spline
    bounds = [math.pi if feature in circular else spline.bound for feature in chosen]
    same = spline.model_dump(exclude={"kind", "bound"})
    return CircularSplineConfig(bound=tuple(bounds), circular=turning, **same)


def seeing_angles(
    net: NetConfig, circular: Sequence[int], inputs: Sequence[int]
) -> NetConfig | PeriodicConfig:
    """The network of these features, of which some may be circular."""
    angles = tuple(place for place, feature in enumerate(inputs) if feature in circular)
    return PeriodicConfig(angles=angles, net=net) if angles else net


def half_turn(circular: tuple[int, ...]) -> list[Layer]:
    """What stands behind a map."""
    return [CircularShiftLayer(chosen=circular, wraps=False)] if circular else []


def uniform_base(circular: tuple[int, ...]) -> list[Layer]:
    """What stands behind all maps."""
    return [UniformLayer(chosen=circular, low=(-math.pi,), high=(math.pi,))] if circular else []


def with_support(flow: Flow, circular: Sequence[int], steps: int) -> Flow:
    """Tell the support of a flow whose features are all circular.

    Args:
        flow: is changed.
        circular: which features are.
        steps: of the preprocessing: what they make into [-pi, pi] is the support.
    """
    if len(circular) < flow.features or not circular:
        return flow
    ends = torch.tensor([-math.pi, math.pi], dtype=torch.float64)
    values = ends.view(2, *[1] * len(flow.event_shape)).expand(2, *flow.event_shape)
    for transform in reversed(flow.chain[:steps]):
        values, _ = transform.decode(values)
    support = Support(float(values.min()), float(values.max()))
    flow.facts = dataclasses.replace(flow.facts, support=support)
    return flow

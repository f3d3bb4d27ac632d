"""The facts of a model: what is known of it beside its weights, whatever computes it; no torch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.flow import Flow


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts of one model; see `models.flow.Facts` for those that users are told.

    config: with its defaults filled in. is_continuous: whether it solves equations.
    counts_evaluations: whether it says how many evaluations of its networks each row took.
    accuracy: as it is served, see `models.checkpoints.accuracy`.
    """

    family: str
    config: dict[str, Any]
    event_shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None
    num_classes: int | None
    num_levels: int | None
    discrete: tuple[int, ...]
    support: tuple[float, float] | None
    num_parameters: int
    is_continuous: bool
    counts_evaluations: bool
    provenance: dict[str, Any]
    accuracy: dict[str, float]

    @property
    def features(self) -> int:
        """D, the number of values in one event."""
        return math.prod(self.event_shape)


def facts_of(flow: "Flow") -> ModelFacts:
    """Read the facts off a loaded flow."""
    from models.ode.transform import is_continuous
    from models.transforms.transform import counts_evaluations

    support = flow.facts.support
    return ModelFacts(
        family=flow.family,
        config=dict(flow.config),
        event_shape=flow.event_shape,
        context_shape=flow.context_shape,
        num_classes=flow.facts.num_classes,
        num_levels=flow.facts.num_levels,
        discrete=flow.facts.discrete,
        support=None if support is None else (support.low, support.high),
        num_parameters=sum(parameter.numel() for parameter in flow.parameters()),
        is_continuous=is_continuous(flow),
        counts_evaluations=counts_evaluations(flow),
        provenance=dict(flow.provenance),
        accuracy=dict(flow.accuracy),
    )

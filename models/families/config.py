"""What every family's configuration has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UnitFloat = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Widths = tuple[PositiveInt, ...]


class FamilyConfig(BaseModel):
    """Plain, JSON-able arguments of a family: strict types, no unknown names, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())

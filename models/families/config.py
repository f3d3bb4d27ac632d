"""What every family's configuration has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Beyond these no flow is built: lengths are 32-bit in ONNX and in some of torch's operators.
LARGEST = 2**31 - 1
MOST_REPEATS = 4096

PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
# How often a part is repeated: each costs Python objects, before any weight is looked at.
Repeats = Annotated[int, Field(gt=0, le=MOST_REPEATS)]
Index = Annotated[int, Field(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UnitFloat = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Widths = Annotated[tuple[PositiveInt, ...], Field(max_length=MOST_REPEATS)]


class FamilyConfig(BaseModel):
    """Plain, JSON-able arguments of a family: strict types, no unknown names, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())

"""The table of families: a name, its configuration, and how to build it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from models.families.chain import ChainConfig, build_chain
from models.families.config import FamilyConfig
from models.families.ffjord import FFJORDConfig, build_ffjord
from models.families.ffjord_image import FFJORDImageConfig, build_ffjord_image
from models.families.glow import GlowConfig, build_glow
from models.families.maf import MAFConfig, build_maf
from models.families.nice import NICEConfig, build_nice
from models.families.nsf import NSFConfig, build_nsf
from models.families.preprocessing import PixelScale
from models.families.realnvp import RealNVPConfig, build_realnvp
from models.families.realnvp_image import RealNVPImageConfig, build_realnvp_image
from models.flow import Flow


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    config: its configuration class.
    build: turns one into a flow.
    pixel_scale: what its preprocessing makes of pixels where a configuration does not say.
    """

    config: type[FamilyConfig]
    build: Callable[[Any], Flow]
    pixel_scale: PixelScale = "logit"


FAMILIES: dict[str, Family] = {
    "chain": Family(ChainConfig, build_chain),
    "ffjord": Family(FFJORDConfig, build_ffjord),
    "ffjord_image": Family(FFJORDImageConfig, build_ffjord_image),
    "glow": Family(GlowConfig, build_glow, pixel_scale="centred"),
    "maf": Family(MAFConfig, build_maf),
    "nice": Family(NICEConfig, build_nice),
    "nsf": Family(NSFConfig, build_nsf),
    "realnvp": Family(RealNVPConfig, build_realnvp),
    "realnvp_image": Family(RealNVPImageConfig, build_realnvp_image),
}


def build(family: str, config: Mapping[str, Any]) -> Flow:
    """Build a freshly initialised flow.

    It is in torch's default dtype; in float64 where its preprocessing needs that, since float32 has
    too few digits for its data (`Flow.needs_float64`: timestamps, large ids).

    Args:
        family: a key of `FAMILIES`.
        config: the family's plain, JSON-able arguments; types are checked strictly.

    Raises:
        ValueError: if the family is unknown, or an argument is unknown, missing or of a wrong type
            or value; the message names each.
    """
    if family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"family: expected one of {known}; got {family!r}{_hint(family)}")
    entry = FAMILIES[family]
    try:
        validated = entry.config.model_validate_json(json.dumps(dict(config)))
    except ValidationError as error:
        raise ValueError(f"{family} config: {_explain(error)}") from None
    flow = entry.build(validated)
    if flow.needs_float64:
        flow.double()
    flow.family = family
    flow.config = validated.model_dump(mode="json")
    return flow


def _hint(name: str) -> str:
    close = get_close_matches(name, FAMILIES, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        field = ".".join(map(str, item["loc"])) or "config"
        got = "" if item["type"] == "missing" else f", got {item['input']!r:.80}"
        lines.append(f"{field}: {item['msg']}{got}")
    return "; ".join(lines)

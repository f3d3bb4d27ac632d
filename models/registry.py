"""The table of families: a name, its configuration, and how to build it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from models.families.about import About
from models.families.chain import CHAIN, ChainConfig, build_chain
from models.families.cnf_unet import CNF_UNET, CNFUNetConfig, build_cnf_unet
from models.families.config import FamilyConfig
from models.families.ffjord import FFJORD, FFJORDConfig, build_ffjord
from models.families.ffjord_image import FFJORD_IMAGE, FFJORDImageConfig, build_ffjord_image
from models.families.gf import GF, GFConfig, build_gf
from models.families.glow import GLOW, GlowConfig, build_glow
from models.families.iaf import IAF, IAFConfig, build_iaf
from models.families.jet import JET, JetConfig, build_jet
from models.families.maf import MAF, MAFConfig, build_maf
from models.families.naf import NAF, NAFConfig, build_naf
from models.families.nice import NICE, NICEConfig, build_nice
from models.families.nsf import NSF, NSFConfig, build_nsf
from models.families.pixelcnn import PIXELCNN, PixelCNNConfig, build_pixelcnn
from models.families.planar import PLANAR, PlanarConfig, build_planar
from models.families.preprocessing import PixelScale
from models.families.radial import RADIAL, RadialConfig, build_radial
from models.families.realnvp import REALNVP, RealNVPConfig, build_realnvp
from models.families.realnvp_image import REALNVP_IMAGE, RealNVPImageConfig, build_realnvp_image
from models.families.tarflow import TARFLOW, TarFlowConfig, build_tarflow
from models.flow import Flow
from models.transforms.jacobi import Decoding


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    config: its configuration class.
    build: turns one into a flow.
    about: what users are told who choose among the families.
    pixel_scale: what its preprocessing makes of pixels where a configuration does not say.
    """

    config: type[FamilyConfig]
    build: Callable[[Any], Flow]
    about: About
    pixel_scale: PixelScale = "logit"


FAMILIES: dict[str, Family] = {
    "chain": Family(ChainConfig, build_chain, CHAIN),
    "cnf_unet": Family(CNFUNetConfig, build_cnf_unet, CNF_UNET, pixel_scale="centred"),
    "ffjord": Family(FFJORDConfig, build_ffjord, FFJORD),
    "ffjord_image": Family(FFJORDImageConfig, build_ffjord_image, FFJORD_IMAGE),
    "gf": Family(GFConfig, build_gf, GF),
    "glow": Family(GlowConfig, build_glow, GLOW, pixel_scale="centred"),
    "iaf": Family(IAFConfig, build_iaf, IAF),
    "jet": Family(JetConfig, build_jet, JET, pixel_scale="centred"),
    "maf": Family(MAFConfig, build_maf, MAF),
    "naf": Family(NAFConfig, build_naf, NAF),
    "nice": Family(NICEConfig, build_nice, NICE),
    "nsf": Family(NSFConfig, build_nsf, NSF),
    "pixelcnn": Family(PixelCNNConfig, build_pixelcnn, PIXELCNN, pixel_scale="unit"),
    "planar": Family(PlanarConfig, build_planar, PLANAR),
    "radial": Family(RadialConfig, build_radial, RADIAL),
    "realnvp": Family(RealNVPConfig, build_realnvp, REALNVP),
    "realnvp_image": Family(RealNVPImageConfig, build_realnvp_image, REALNVP_IMAGE),
    "tarflow": Family(TarFlowConfig, build_tarflow, TARFLOW, pixel_scale="centred"),
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
    entry = find_family(family)
    try:
        validated = _validate(entry, config)
    except ValidationError as error:
        raise ValueError(_explain(family, error.errors())) from None
    flow = entry.build(validated)
    if flow.needs_float64:
        flow.double()
    flow.family = family
    flow.config = validated.model_dump(mode="json")
    return flow


def find_family(name: str) -> Family:
    """Look a family up.

    Raises:
        ValueError: if there is none of this name; names those there are.
    """
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(f"family: expected one of {known}; got {name!r}{_hint(name, FAMILIES)}")
    return FAMILIES[name]


def check_arguments(family: str, config: Mapping[str, Any]) -> None:
    """Refuse what no data can mend; what is missing may still be taken from them.

    Raises:
        ValueError: if the family is unknown, or an argument is unknown or of a wrong type or value.
    """
    try:
        _validate(find_family(family), config)
    except ValidationError as error:
        faults = [item for item in error.errors() if item["type"] != "missing"]
        if faults:
            raise ValueError(_explain(family, faults)) from None


def choose_decoding(family: str, config: Mapping[str, Any], decoding: Decoding) -> dict[str, Any]:
    """Say of every autoregressive map in a configuration how it is inverted.

    Raises:
        ValueError: there is none.
    """
    if family == "chain":
        layers = [
            {**layer, "decoding": decoding} if layer["kind"] == "autoregressive" else layer
            for layer in config["layers"]
        ]
        if layers != list(config["layers"]):
            return {**config, "layers": layers}
    # A spline flow of couplings has the option, and no use for it.
    elif "decoding" in FAMILIES[family].config.model_fields and (
        family != "nsf" or config.get("structure") == "autoregressive"
    ):
        return {**config, "decoding": decoding}
    raise ValueError(f"decoding: expected a flow with autoregressive maps, got a {family} without")


def _validate(family: Family, config: Mapping[str, Any]) -> FamilyConfig:
    return family.config.model_validate_json(json.dumps(dict(config)))


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(family: str, faults: Iterable[Mapping[str, Any]]) -> str:
    lines = [_line(FAMILIES[family].config, item) for item in faults]
    return f"{family} config: {'; '.join(lines)}"


def _line(config: type[FamilyConfig], item: Mapping[str, Any]) -> str:
    """One fault: which argument, what is wrong, and what came."""
    field = ".".join(map(str, item["loc"])) or "config"
    if item["type"] == "extra_forbidden":
        *path, name = item["loc"]
        known = _names_at(config, path)
        return (
            f"{field}: no such argument{_hint(str(name), known)}; "
            f"expected one of {', '.join(known)}"
        )
    if item["type"] == "value_error":  # ours, and whole: pydantic's words before it say nothing
        said = str(item["ctx"]["error"])
        return f"{field}: {said}" if item["loc"] else said
    got = "" if item["type"] == "missing" else f", got {item['input']!r:.80}"
    return f"{field}: {item['msg']}{got}"


def _names_at(config: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the arguments of the part of a configuration that pydantic's path leads to."""
    parts: list[type[BaseModel]] = [config]
    for step in map(str, path):
        # A path has a step for the kind of a part, where there are several kinds.
        tagged = [part for part in parts if len(parts) > 1 and _kind(part) == step]
        inner = [part.model_fields[step] for part in parts if step in part.model_fields]
        if tagged:
            parts = tagged
        elif inner:
            parts = [model for info in inner for model in _parts_in(info.annotation)]
    return list(dict.fromkeys(name for part in parts for name in part.model_fields))


def _kind(part: type[BaseModel]) -> Any:
    """The kind by which a part is told from others in its place, if it has one."""
    info = part.model_fields.get("kind")
    return info and next(iter(get_args(info.annotation)), None)


def _parts_in(annotation: Any) -> list[type[BaseModel]]:
    """Every configuration that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts_in(inner)]

"""`layers_per_step`: a flow of normflows described layer by layer, one line a flow.

`acb MAP SPLIT SCALE` is an AffineCouplingBlock ("acb sigmoid channel True"), `perm MODE` a Permute
("perm swap"), `act` an ActNorm. The lines come in the order of `flows`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.importers.report import ImportRefused

FIELD = "layers_per_step"
ORDER, TURN = "layers", "PeriodicShift"
BLOCK, SHUFFLE, SWAP, NORM = "acb", "perm shuffle", "perm swap", "act"
_SCALES = {"true": True, "false": False}
_EXPECTED = (
    f"{FIELD}: expected one line a flow, `acb MAP SPLIT SCALE` as in 'acb sigmoid channel True', "
    "`perm shuffle`, `perm swap` or `act`"
)


def unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn the lines into the arguments that they hold, and what is left of them into kinds.

    Raises:
        ImportRefused: if a line cannot be read, or an argument is given otherwise too.
    """
    lines = settings.get(FIELD)
    if lines is None:
        return settings
    words = [_split(line) for line in lines] if _is_list(lines) else []
    if not words:
        raise ImportRefused(f"{_EXPECTED}; got {lines!r}")
    kinds = [" ".join(line) if line[0] == "perm" else line[0] for line in words]
    blocks = [line for line in words if line[0] == BLOCK]
    told: dict[str, Any] = {"permute": _permute(kinds)}
    if blocks:
        told |= {
            "scale_map": [line[1] for line in blocks],
            "split_mode": [line[2] for line in blocks],
            "scale": [_SCALES[line[3]] for line in blocks],
        }
    _check_modes(settings.get("permute_mode"), kinds)
    for name, value in told.items():
        given = settings.get(name, value)
        is_one_for_all = isinstance(value, list) and value == [given] * len(value)
        if given != value and not is_one_for_all:
            raise ImportRefused(
                f"{name}: {given!r} was given, and {FIELD} says {value!r}; leave one of them out"
            )
    return {**told, **settings, FIELD: kinds}


def unfold_order(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the length of flows off `layers`, where it names them and ends in a PeriodicShift."""
    lines = settings.get(ORDER)
    if not isinstance(lines, str):
        return settings
    names = [name.strip().replace("PeriodicWrap", TURN) for name in lines.split(",")]
    length = {"num_flows": len(names)} if names[-1] == TURN else {}
    return {**length, **settings, ORDER: ", ".join(names)}


def _check_modes(modes: Any, kinds: list[str]) -> None:
    count = sum(kind in (SHUFFLE, SWAP) for kind in kinds)
    if _is_list(modes) and len(modes) != count:
        raise ImportRefused(
            f"permute_mode: {list(modes)} was given, and {FIELD} has {count} permutations"
        )


def _is_list(lines: Any) -> bool:
    return isinstance(lines, Sequence) and not isinstance(lines, str)


def _split(line: Any) -> list[str]:
    words = str(line).lower().split()
    is_block = len(words) == 4 and words[0] == BLOCK and words[3] in _SCALES
    if not is_block and " ".join(words) not in (SHUFFLE, SWAP, NORM):
        raise ImportRefused(f"{_EXPECTED}; got {line!r}")
    return words


def _permute(kinds: list[str]) -> str:
    if SWAP not in kinds:
        return "none"
    return "swap" if kinds[-1] == SWAP else "swap_between"

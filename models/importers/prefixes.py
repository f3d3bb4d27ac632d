"""Which part of a state dict is the flow: prefixes of keys, and what stands beside them."""

from collections.abc import Callable, Mapping

from torch import Tensor

from models.importers.report import ImportRefused, Report
from models.importers.state import State
from models.importers.wrappers import without_wrappers

# The sources that recognise keys.
Recognise = Callable[[Mapping[str, Tensor]], list[str]]

_MAX_DEPTH = 4
_MAX_NAMED = 6


def strippings(state: State) -> list[State]:
    """The state dict, and what is left of it each time a prefix common to all keys is removed."""
    found = [state]
    while len(state) > 1 and len({key.split(".")[0] for key in state}) == 1:
        state = {key.partition(".")[2]: value for key, value in state.items()}
        if "" in state:
            break
        found.append(state)
    return found


def without_common(state: State, report: Report, recognise: Recognise) -> State:
    """Remove a prefix that all keys share, where a source recognises what is left.

    Raises:
        ImportRefused: if a part of the keys is a flow and others stand beside it; names both.
    """
    for stripped in strippings(state):
        if recognise(stripped):
            if stripped is not state:
                first, short = next(iter(state)), next(iter(stripped))
                report.mended("keys", f"`{first.removesuffix(short)}` was taken off the keys")
            return stripped
    inner = _flows_inside(state, recognise)
    if not inner:
        return state
    described = "; ".join(
        f"those under `{prefix}.` are keys of {' or '.join(names)}"
        for prefix, names in inner.items()
    )
    others = [key for key in state if not any(key.startswith(f"{name}.") for name in inner)]
    beside = f", and beside them stand {_named(others)}" if others else ""
    raise ImportRefused(
        f"the file holds more than a flow: {described}{beside}. What these do to the density is in "
        "code that the file does not hold; if nothing, take the flow alone: "
        f"--prefix {next(iter(inner))}"
    )


def under(states: Mapping[str, State], prefix: str, report: Report) -> dict[str, State]:
    """The tensors below a prefix, of every state dict that has any.

    Raises:
        ImportRefused: if none has.
    """
    start = f"{without_wrappers(prefix.strip('.'))}."
    found: dict[str, State] = {}
    for name, state in states.items():
        inside = _below(state, start)
        if not inside:
            continue
        found[name] = inside
        others = [key for key in state if not key.startswith(start)]
        if others:
            report.warning(
                start, f"the flow is taken from there; left out, whatever they do: {_named(others)}"
            )
    if not found:
        heads = {key.partition(".")[0] for state in states.values() for key in state if "." in key}
        raise ImportRefused(
            f"--prefix {prefix}: no key begins with {start}; expected the name of a module, such "
            f"as {_named(sorted(heads, key=len))}"
        )
    return found


def _flows_inside(state: State, recognise: Recognise) -> dict[str, list[str]]:
    """Prefixes below which a source recognises the keys, the shortest of each branch."""
    prefixes: dict[str, None] = {}
    for key in state:
        parts = key.split(".")[:-1]
        for depth in range(1, min(len(parts), _MAX_DEPTH) + 1):
            prefixes[".".join(parts[:depth])] = None
    found: dict[str, list[str]] = {}
    for prefix in sorted(prefixes, key=lambda name: name.count(".")):
        if any(prefix.startswith(f"{shorter}.") for shorter in found):
            continue
        if names := recognise(_below(state, f"{prefix}.")):
            found[prefix] = names
    return found


def _below(state: State, start: str) -> State:
    """The tensors whose keys start so, without that start."""
    return {
        key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)
    }


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - _MAX_NAMED} more" if len(keys) > _MAX_NAMED else ""
    return f"{', '.join(keys[:_MAX_NAMED])}{more}"

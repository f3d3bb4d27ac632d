"""Modules of torch inside pickles that are not run: what they are, and how to get their weights."""

import shlex
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from models.importers.inert import Malformed, Record
from models.importers.pickles import Refused
from models.importers.report import ImportRefused
from models.importers.torch_files import read_file

# What the state of a torch.nn.Module has.
_PARTS = {"_parameters", "_buffers", "_modules"}
# Packages whose flows can be imported, by the name of their source.
_SOURCES = {name: name for name in ("FrEIA", "nflows", "normflows", "sbi", "zuko")}
# The first bytes of files of torch.save from before 1.6.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_PLACES = 10_000


class _Found(NamedTuple):
    """A module, by its class, and the Python expression that leads to it from what is pickled."""

    name: str
    outermost: str
    place: str


def refusal(path: Path) -> ImportRefused | None:
    """Say how to save the state dict of a pickled module; None where there is none in the file."""
    found = _find(path)
    if found is None:
        return None
    package = found.outermost.partition(".")[0]
    source = _SOURCES.get(package, "")
    target = "density_estimator.pt" if source == "sbi" else "state_dict.pt"
    kind, inner = (name.rpartition(".")[2] for name in (found.outermost, found.name))
    whose = f"the state dict of the {inner} in it" if found.place else "its state dict"
    where = "the code of the class is" if package == "__main__" else f"{package} is installed"
    return ImportRefused(
        f"{path}: a pickled object of {package} ({kind}): it asks for {found.outermost}, which is "
        f"code and not data, so it was not read (and nothing in it ran). Save {whose} where "
        f"{where}: {_command(path, found.place, target)}; then: pushforward import "
        f"{f'{source} ' if source else ''}{target} --out FOLDER; or, if you trust who made the "
        "file, import it with --allow-pickle"
    )


def _command(path: Path, place: str, target: str) -> str:
    name = repr(path.name)
    with path.open("rb") as file:
        is_torch = zipfile.is_zipfile(path) or file.read(len(_OLD_TORCH)) == _OLD_TORCH
    if is_torch:
        imported, loaded = "torch", f"torch.load({name}, weights_only=False)"
    else:
        imported, loaded = "pickle, torch", f"pickle.load(open({name}, 'rb'))"
    program = f"import {imported}; torch.save({loaded}{place}.state_dict(), {target!r})"
    return f"python -c {_quoted(program)}"


def _quoted(program: str) -> str:
    return f'"{program}"' if not set('"$`\\') & set(program) else shlex.quote(program)


def _find(path: Path) -> _Found | None:
    """The module that lies nearest to the surface; nothing of the file is imported or called."""
    try:
        content = read_file(path, every_name=True).value
    except (Malformed, Refused, OSError, zipfile.BadZipFile):
        return None
    waiting = deque([(content, "", "")])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_PLACES:
        value, place, outermost = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            outermost = outermost or value.name
            if _attributes(value).keys() >= _PARTS:
                return _Found(value.name, outermost, place)
        waiting.extend((part, place + step, outermost) for part, step in _inside(value))
    return None


def _inside(value: Any) -> Iterator[tuple[Any, str]]:
    """What a value holds, and how Python gets there."""
    if isinstance(value, Record):
        for name, part in _attributes(value).items():
            yield part, f".{name}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if isinstance(key, str | int):
                yield part, f"[{key!r}]"
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield part, f"[{index}]"


def _attributes(record: Record) -> dict[str, Any]:
    state = record.state
    if isinstance(state, tuple) and state and isinstance(state[0], dict):
        state = state[0]
    if not isinstance(state, dict):
        return {}
    return {name: part for name, part in state.items() if isinstance(name, str)}

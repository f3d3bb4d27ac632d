"""Environments that hold exactly what a `pip install` of the pages brings, made without a network.

The distributions that the tests run with lie there already. An environment links those that its
requirements bring, and what these bring along, so that a package which an extra forgot is missing
there as it is for a reader. `pip` in it takes the forms of the pages, and refuses others.

    python -m tests.docs.environment venv FOLDER
    python -m tests.docs.environment pip FOLDER install '.[cpu]'
"""

import hashlib
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tests.docs.blocks import ROOT
from tests.docs.warm import PYTHON

# Where environments are kept, by what is installed in them.
CACHE_VARIABLE = "PAGES_ENVIRONMENTS"
WARM = Path(__file__).with_name("warm.py")

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# What environments are made from.
PYTHON_OF_MACHINE = Path(sys.base_prefix) / "bin" / f"python{_VERSION}"
_PROJECT = "pushforward"
_INSTALLED = "installed.txt"
_FLAGS = ("--quiet", "--disable-pip-version-check", "--editable", "-e", "--no-deps")
_ACTIVATE = """\
export PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd):$PATH"
"""
_PIP = """\
import os, sys
environment = {{**os.environ, "PYTHONPATH": {root!r}}}
words = [{python!r}, "-m", "tests.docs.environment", "pip", sys.prefix, *sys.argv[1:]]
os.execve(words[0], words, environment)
"""
_PYTHON3 = """\
#!/bin/sh
[ "$1 $2" = "-m venv" ] && exec {make} venv "$3"
exec {python} "$@"
"""
_SH_PIP = """\
#!/bin/sh
exec "$(dirname "$0")/python" -m pip "$@"
"""


class PipError(Exception):
    """What a reader's pip would refuse, or what this one does not know."""


def make(folder: Path, requirements: Iterable[str] = ()) -> None:
    """Make `folder` an environment with these requirements, and what they bring along.

    Raises:
        PipError: a requirement cannot be read, or cannot be had.
    """
    wanted = sorted(set(requirements))
    key = hashlib.sha256("\n".join([str(ROOT), *wanted]).encode()).hexdigest()[:16]
    kept = Path(os.environ[CACHE_VARIABLE]) / key
    if not kept.exists():
        _build(kept, wanted)
    if folder.is_symlink():
        folder.unlink()
    folder.symlink_to(kept)


def _build(folder: Path, requirements: list[str]) -> None:
    found = closure(requirements)
    site = folder / "lib" / f"python{_VERSION}" / "site-packages"
    site.mkdir(parents=True)
    _link_interpreter(folder)
    for name in found - {_PROJECT}:
        _link(metadata.distribution(name), site)
    (site / "pip").mkdir()
    code = _PIP.format(root=str(ROOT), python=sys.executable)
    (site / "pip" / "__main__.py").write_text(code)
    _write_script(folder / "bin" / "pip", _SH_PIP)
    if _PROJECT in found:
        _install_project(folder, site)
    (folder / _INSTALLED).write_text("\n".join(requirements))


def _link_interpreter(folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(PYTHON_OF_MACHINE)
    write_python3(folder / "bin" / "python3", '"$(dirname "$0")/python"')
    lines = (f"home = {PYTHON_OF_MACHINE.parent}", "include-system-site-packages = false")
    (folder / "pyvenv.cfg").write_text("\n".join(lines))
    (folder / "bin" / "activate").write_text(_ACTIVATE)
    _write_shim(folder / "bin" / PYTHON)


def write_python3(path: Path, python: str) -> None:
    """Write a `python3` that is `python`, a word of the shell, and makes environments as `make`."""
    make = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.docs.environment"])
    _write_script(path, _PYTHON3.format(make=make, python=python))


def _install_project(folder: Path, site: Path) -> None:
    """The clone, as `pip install --editable` leaves it; its command may be answered by `warm`."""
    project = _project()
    (site / "pushforward.pth").write_text(str(ROOT))
    info = site / f"{_PROJECT}-{project['version']}.dist-info"
    info.mkdir()
    facts = (f"Name: {_PROJECT}", f"Version: {project['version']}")
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *facts, ""]))
    module, function = project["scripts"][_PROJECT].split(":")
    code = f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"
    (folder / "entry.py").write_text(code)
    _write_shim(folder / "bin" / _PROJECT)


def _write_shim(path: Path) -> None:
    _write_script(path, f"#!{PYTHON_OF_MACHINE} -IS\n{WARM.read_text('utf-8')}")


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _link(found: metadata.Distribution, site: Path) -> None:
    """Link what a distribution has in site-packages; the files of one where others may share."""
    record = found.read_text("RECORD")
    assert record, f"{found.name}: its files are not known"
    paths = (PurePosixPath(line.rsplit(",", 2)[0].strip('"')) for line in record.splitlines())
    files = [path for path in paths if path.parts[0] != ".."]
    for top in {file.parts[0] for file in files}:
        source = Path(str(found.locate_file(top)))
        if not _is_shared(source):
            (site / top).symlink_to(source)
            continue
        for file in (file for file in files if file.parts[0] == top):
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            if not (site / file).exists():
                (site / file).symlink_to(Path(str(found.locate_file(file))))


def _is_shared(path: Path) -> bool:
    """Whether it is a namespace, in which several distributions may have something."""
    whole = path.suffix in (".dist-info", ".libs") or (path / "__init__.py").exists()
    return path.is_dir() and not whole


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return project["project"]


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of all distributions that requirements bring, and of those that they bring along.

    Raises:
        PipError: a requirement cannot be read, or cannot be had.
    """
    open_ = [_read(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while open_:
        wanted = open_.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                open_.extend(_required(wanted, name, extra))
    return {name for name, _ in seen}


def _read(text: str) -> Requirement:
    found = re.fullmatch(r"\.(\[.+\])?", text)
    try:
        return Requirement(f"{_PROJECT}{found[1] or ''}" if found else text)
    except InvalidRequirement as error:
        raise PipError(f"{text}: {error}") from None


def _required(wanted: Requirement, name: str, extra: str) -> Iterator[Requirement]:
    """What one distribution needs of itself (no extra), or with one of its extras."""
    if name == _PROJECT:
        yield from map(Requirement, lines_of_project(extra))
        return
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise PipError(f"{wanted}: not among what the tests are run with") from None
    if not wanted.specifier.contains(found.version, prereleases=True):
        raise PipError(f"{wanted}: {found.version} is what the tests are run with")
    for line in found.requires or ():
        inner = Requirement(line)
        if inner.marker is None or inner.marker.evaluate({"extra": extra}):
            yield inner


def lines_of_project(extra: str) -> list[str]:
    """The requirements of this project, or of one of its extras (none: "")."""
    project = _project()
    lines: list[str] = project["dependencies"]
    if not extra:
        return lines
    try:
        lines = project["optional-dependencies"][extra]
    except KeyError:
        raise PipError(f"pushforward has no extra {extra!r}") from None
    return [line for line in lines if _applies(line)]


def _applies(line: str) -> bool:
    marker = Requirement(line).marker
    return marker is None or marker.evaluate()


def pip(folder: Path, words: list[str]) -> None:
    """Install what the words of a pip command say into an environment, beside what is there.

    Raises:
        PipError: it is no command of the pages' form, or cannot be carried out.
    """
    if words[:1] == ["--quiet"]:
        words = words[1:]
    if words[:1] != ["install"]:
        raise PipError(f"pip {' '.join(words)}: expected install")
    requirements = []
    rest = iter(words[1:])
    for word in rest:
        if word == "-c":
            constraints = Path(next(rest))
            if not constraints.is_file():
                raise PipError(f"{constraints}: not there")
        elif word.startswith("-"):
            if word not in _FLAGS:
                raise PipError(f"pip install {word}: not a flag of the pages")
        else:
            requirements.append(word)
    if any(word.startswith(".") for word in requirements) and not Path("pyproject.toml").exists():
        raise PipError("no pyproject.toml: '.' is not a clone")
    before = (folder / _INSTALLED).read_text().splitlines()
    make(folder, [*before, *requirements])


def main() -> int:
    """Answer `venv FOLDER` and `pip FOLDER WORDS...`."""
    command, folder, *words = sys.argv[1:]
    try:
        if command == "venv":
            make(Path(folder))
        else:
            pip(Path(folder), words)
    except PipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

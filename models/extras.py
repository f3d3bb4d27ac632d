"""How an extra that is missing is installed: from where this installation came from."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_ROOT = Path(__file__).resolve().parent.parent


def install_command(extra: str, *, root: Path = _ROOT) -> str:
    """The command that adds an extra of this package to the environment.

    An index need not have a release: what came from a clone, an archive or a repository is
    installed from there again.

    Args:
        extra: its name.
        root: the folder that holds our packages; a clone, where pyproject.toml lies in it.
    """
    if (root / "pyproject.toml").is_file():
        return f"pip install --editable '.[{extra}]' in {root}"
    origin = _origin()
    url = origin.get("url", "")
    if "dir_info" in origin:
        return f"pip install '.[{extra}]' in {url2pathname(urlsplit(url).path)}"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"pip install 'pushforward[{extra}]{f' @ {url}' if url else ''}'"


def _origin() -> dict[str, Any]:
    """What pip wrote of where the package came from (PEP 610); empty for an index."""
    try:
        text = distribution("pushforward").read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    origin: dict[str, Any] = json.loads(text or "{}")
    return origin

"""Training without drawing: pictures take longer than the steps of the short runs that tests make.

A module of tests imports `blank_pictures`, which then holds for all of it; a test that looks at
pictures takes `drawn_pictures`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from models.training.pictures import LOSS_FILE, SAMPLES_FILE, write_pictures

_DRAWS = "models.training.loop.write_pictures"


def _write_blank(_flow: object, _parts: object, _report: object, folder: Path) -> None:
    for name in (LOSS_FILE, SAMPLES_FILE):
        Image.new("RGB", (1, 1)).save(folder / name)


@pytest.fixture(scope="module", autouse=True)
def blank_pictures() -> Iterator[None]:
    """Let training write pictures of one pixel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_DRAWS, _write_blank)
        yield


@pytest.fixture
def drawn_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training draw its pictures all the same."""
    monkeypatch.setattr(_DRAWS, write_pictures)

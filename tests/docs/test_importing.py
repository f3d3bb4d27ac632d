"""docs/importing.md has an example for every source; what it makes comes from that source."""

import json
import re
from collections.abc import Callable

import pytest

from models.importers.registry import NAMES
from tests.docs.blocks import blocks_of, read_page
from tests.docs.reader import Reader

PAGE = "docs/importing.md"
SECTIONS = dict(re.findall(r"^### `(.+?)`.*?\n(.*?)(?=^##|\Z)", read_page(PAGE), re.M | re.S))
BLOCKS = [block for block in blocks_of(PAGE) if block.language == "sh"]


def test_every_source_has_an_example_from_file_to_curl() -> None:
    assert set(NAMES) <= set(SECTIONS)
    for name, section in SECTIONS.items():
        words = ("pushforward import", "--out", "pushforward serve", "curl localhost:8000/")
        assert [word for word in words if word not in section] == [], name
    assert [block.heading for block in BLOCKS] == list(SECTIONS)


@pytest.mark.xdist_group("page_importing")
@pytest.mark.parametrize("place", range(len(BLOCKS)), ids=[block.heading for block in BLOCKS])
def test_the_model_says_where_it_came_from(place: int, reader: Callable[[str], Reader]) -> None:
    """Which the import knew by the weights, where the command does not say it."""
    block = BLOCKS[place]
    reader(PAGE).run(block, BLOCKS[:place])
    (folder,) = re.findall(r"--out (\S+)", block.text)
    config = json.loads((reader(PAGE).clone / folder / "config.json").read_text())
    assert config["provenance"]["imported_from"] == block.heading
    assert config["family"]

"""Every block of README.md and docs/ runs, or is excused with a reason."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.docs.blocks import LANGUAGES, PAGES, Block, blocks_of, commands_of
from tests.docs.pages import EXCUSED, FILES, REPLACED, VARIABLES, needs_server
from tests.docs.reader import Reader, find_excuse, is_excused

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [block for block in BLOCKS if block.language != "text" and not is_excused(block)]


def _group(block: Block) -> str:
    """Pages that share a server, or environments, stay on one process."""
    if block.page == "README.md" or needs_server(block.page):
        return "pages_of_one_server"
    return "page_importing" if block.page == "docs/importing.md" else "pages"


@pytest.mark.parametrize(
    "block",
    [pytest.param(one, marks=pytest.mark.xdist_group(_group(one)), id=str(one)) for one in RUN],
)
def test_a_block_runs(block: Block, reader: Callable[[str], Reader]) -> None:
    before = [one for one in RUN if one.page == block.page and one.line < block.line]
    reader(block.page).run(block, before)


def test_the_readme_shows_every_call() -> None:
    shown = " ".join(text for block in RUN if block.page == "README.md" for text in _texts(block))
    for call in ("/log_prob", "/encode", "/decode", "/sample", "/models", "image/png", "x-npy"):
        assert call in shown


def test_blocks_are_counted() -> None:
    kinds = Counter(block.language for block in BLOCKS)
    pictures = kinds["text"]
    excused = len(BLOCKS) - pictures - len(RUN)
    print(f"{len(BLOCKS)} blocks: {len(RUN)} run, {excused} excused, {pictures} are text; {kinds}")
    assert len(RUN) > 30


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_fence_says_what_it_holds(block: Block) -> None:
    assert block.language in LANGUAGES
    if block.language == "text":
        assert "$ " not in block.text


def test_every_entry_is_needed() -> None:
    commands = [(one.page, text) for one in BLOCKS for text in _texts(one)]
    for page, start in EXCUSED:
        assert any(at == page and text.startswith(start) for at, text in commands), start
    for page, old, _, _ in REPLACED:
        assert any(at == page and old in text for at, text in commands), old
    assert {*VARIABLES, *FILES} <= {page for page, _ in commands}


def _texts(block: Block) -> list[str]:
    if block.language in ("sh", "console"):
        return [command.text for command in commands_of(block)]
    return [block.text]


def test_every_reason_is_said() -> None:
    for block in BLOCKS:
        if is_excused(block):
            assert all(find_excuse(block.page, text) for text in _texts(block))

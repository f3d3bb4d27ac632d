"""The readers of the pages, one a page and worker; those who need a server share the README's."""

from collections.abc import Callable, Iterator

import pytest

from tests.docs.blocks import blocks_of
from tests.docs.environment import CACHE_VARIABLE
from tests.docs.pages import needs_server
from tests.docs.reader import Reader, WarmProcesses


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for environments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("environments")))
        yield


@pytest.fixture(scope="session")
def reader(
    environments: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Reader]]:
    """The reader of a page, who has run nothing of it yet when asked for first."""
    readers: dict[str, Reader] = {}
    warm = WarmProcesses()

    def find(page: str) -> Reader:
        if page not in readers:
            ports = None
            if needs_server(page):
                ports = find("README.md").ports
                _serve(find("README.md"))
            folder = tmp_path_factory.mktemp("page")
            readers[page] = Reader(page, folder, warm, ports)
        return readers[page]

    yield find
    for one in readers.values():
        one.close()
    warm.close()


def _serve(readme: Reader) -> None:
    """Have the README's `make serve` run."""
    blocks = blocks_of("README.md")
    (place,) = (place for place, one in enumerate(blocks) if one.text == "make serve\n")
    readme.run(blocks[place], blocks[:place])

"""The table of what the page can do: complete, and true."""

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FunctionType

from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, until
from tests.e2e.page.features import CLASS_MAP, FEATURES, KINDS, MODELS, Cell, Unfit

pytestmark = MARKS

DOCS = Path(__file__).parents[3] / "docs" / "page.md"


def test_every_feature_has_a_cell_for_every_kind() -> None:
    features = {feature for feature, _ in FEATURES}
    assert FEATURES.keys() == {(feature, kind) for feature in features for kind in KINDS}


def opens_one_of(test: FunctionType, models: Sequence[str]) -> bool:
    """Whether a test names one of the models, in what it does or what it is tried with."""
    tried = [mark.args for mark in getattr(test, "pytestmark", ())]
    text = f"{inspect.getsource(test)}{tried}"
    text += "".join(
        str(value)
        for name, value in vars(inspect.getmodule(test)).items()
        if name.isupper() and name in test.__code__.co_names
    )
    return any(re.search(rf"\b{model}\b(?!-)", text) for model in models)


def test_every_test_of_the_table_is_there() -> None:
    for (_, kind), cell in FEATURES.items():
        if isinstance(cell, str):
            file, _, name = cell.partition("::")
            assert file.startswith("test_"), cell
            assert name.startswith("test_"), cell
            module = import_module(f"tests.e2e.page.{file.removesuffix('.py')}")
            assert opens_one_of(getattr(module, name), MODELS[kind]), (kind, cell)


def unfit_by_model() -> Iterator[tuple[str, list[Unfit]]]:
    cells = {cell for cell in FEATURES.values() if isinstance(cell, Unfit)}
    for model in sorted({cell.model for cell in cells}):
        yield model, [cell for cell in cells if cell.model == model]


@AT_LENGTH
def test_the_page_says_why_a_model_has_no_such_feature(server: RunningServer, page: Page) -> None:
    for model, cells in unfit_by_model():
        page.goto("about:blank")
        page.goto(f"{server.url}/ui#model={model}")
        until(page, "document.querySelector('#views > section:not([hidden])') !== null")
        for cell in cells:
            tab = page.locator(f"#tab-{cell.view}")
            if tab.is_disabled():
                assert cell.says in (tab.get_attribute("title") or ""), cell
            else:
                tab.click()
                expect(page.locator(f"#view-{cell.view}")).to_contain_text(cell.says)


@AT_LENGTH
def test_no_two_elements_of_the_views_have_one_name(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/ui#model=moons")
    until(page, "document.querySelector('#views > section:not([hidden])') !== null")
    for tab in page.locator("[role=tab]").all():
        tab.click()
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert sorted(name for name, count in Counter(ids).items() if count > 1) == []


def mark(cell: Cell) -> str:
    """Give what stands in the docs for a cell: the zoo's own model of classes has no map."""
    return "–" if isinstance(cell, Unfit) else "✓ (of tables)" if cell == CLASS_MAP else "✓"


def test_the_table_of_the_docs_is_this_one() -> None:
    text = DOCS.read_text("utf-8")
    for feature in {feature for feature, _ in FEATURES}:
        marks = (mark(FEATURES[feature, kind]) for kind in KINDS)
        assert f"| {' | '.join((feature, *marks))} |" in text

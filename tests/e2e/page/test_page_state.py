"""What the page shows when answers come late or not at all, and when its address is odd."""

import json
import re

from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until
from tests.e2e.page.density_page import IS_FINE

pytestmark = MARKS

# The next answer of a path is late (ms), is an error (status), or is another one (edit).
RULES = """(() => {
  const plain = window.fetch;
  const rules = [%s];
  window.fetch = async (path, options) => {
    const at = rules.findIndex(rule => rule.path.test(path)
      && (options.headers?.Accept ?? "").includes(rule.accept ?? ""));
    if (at === -1) return plain(path, options);
    const { ms, status, edit } = rules[at];
    if (!edit) rules.splice(at, 1);
    if (ms) await new Promise(done => setTimeout(done, ms));
    if (status) return new Response(JSON.stringify({ detail: "not now" }), { status });
    const answer = await plain(path, options);
    return edit && answer.ok ? new Response(JSON.stringify(edit(await answer.json()))) : answer;
  };
})()"""


def with_rules(page: Page, *rules: str) -> None:
    page.add_init_script(RULES % ", ".join(rules))


@AT_LENGTH
def test_model_chosen_last_is_looked_at_however_late_another_answers(
    server: RunningServer, page: Page
) -> None:
    with_rules(page, "{ path: /models.magic$/, ms: 500 }")
    open_view(page, server, "pinwheel", "live")
    page.locator("#model").select_option("magic")
    page.locator("#model").select_option("moons")
    expect(page.locator("#facts")).to_contain_text("x [2]")
    page.wait_for_timeout(700)
    expect(page.locator("#facts")).to_contain_text("x [2]")


@AT_LENGTH
def test_model_that_fails_to_come_is_not_shown_as_the_one_before(
    server: RunningServer, page: Page
) -> None:
    with_rules(page, "{ path: /models.magic$/, status: 503 }")
    open_view(page, server, "moons", "live")
    page.locator("#model").select_option("magic")
    expect(page.locator("#facts")).to_have_text("not now")
    expect(page.locator("#calls")).to_be_hidden()
    page.locator("#model").select_option("moons")
    expect(page.locator("#view-live")).to_be_visible()


@AT_LENGTH
def test_point_is_itemised_though_the_first_map_is_given_up(
    server: RunningServer, page: Page
) -> None:
    with_rules(page, "{ path: /^log_prob/, accept: 'npy', ms: 600 }")
    open_view(page, server, "moons", "density")
    until(page, "document.querySelector('#density-row').value !== ''")
    page.wait_for_timeout(100)
    page.locator("#density-in").click()
    until(page, IS_FINE)
    expect(page.locator("#density-status")).to_contain_text("nats")
    expect(page.locator("#density-z-text")).to_contain_text("z1")


@AT_LENGTH
def test_map_comes_with_the_first_row_that_is_one(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density", row="[1]")
    expect(page.locator("#density-row-message")).to_contain_text("expected 2 numbers")
    for button in ("in", "left", "fit", "whole"):
        page.locator(f"#density-{button}").click()
    page.locator("#density-row").fill("[0.5, 0.25]")
    page.locator("#density-row").blur()
    until(page, IS_FINE)
    expect(page.locator("#density-status")).to_contain_text("x1 0.5, x2 0.25")


@AT_LENGTH
def test_numbers_that_are_no_sum_are_not_shown_as_one(server: RunningServer, page: Page) -> None:
    with_rules(
        page,
        """{ path: /^log_prob$/, accept: "json",
             edit: answer => ({ ...answer, log_prob: [answer.log_prob[0] + 1] }) }""",
    )
    open_view(page, server, "moons", "density", row="[0.5,0.25]")
    expect(page.locator("#density-off")).to_contain_text(
        re.compile(r"differ by (1|0\.999\d*) nats")
    )


@AT_LENGTH
def test_fields_follow_the_address_and_the_model(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "samples", temperature=0.5, count=20)
    temperature = page.locator("#temperature")
    expect(temperature).to_have_value("0.5")
    page.evaluate("location.hash = '#model=moons&view=samples&temperature=0.8&count=30'")
    expect(temperature).to_have_value("0.8")
    expect(page.locator("#count")).to_have_value("30")
    page.locator("#model").select_option("magic")
    expect(temperature).to_have_value("1")


@AT_LENGTH
def test_values_that_no_field_has_are_left_out(server: RunningServer, page: Page) -> None:
    state = {"nats": 7, "window": "1,1,1,1", "rowseed": -4}
    open_view(page, server, "moons", "density", **state)
    until(page, IS_FINE)
    expect(page.locator("#density-nats")).to_have_value("10")
    expect(page.locator("#density-seed")).to_have_value("0")
    assert page.locator("#density-low").inner_text() != page.locator("#density-high").inner_text()
    open_view(page, server, "digits-classes", "live", **{"class": 99, "of": "nothing"})
    expect(page.locator("#label")).to_have_value("0")
    expect(page.locator("#live-of")).to_have_value("")


@AT_LENGTH
def test_equal_classes_have_no_direction(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-classes", "interpolate", **{"from": 1, "to": 1})
    message = page.locator("#class-to-message")
    expect(message).to_have_text("choose two different classes")
    page.locator("#class-to").select_option("2")
    expect(message).to_have_text("")


@AT_LENGTH
def test_context_is_complained_of_at_its_own_field(server: RunningServer, page: Page) -> None:
    card = "{ path: /models.moons$/, edit: card => ({ ...card, context_shape: [2] }) }"
    with_rules(page, card)
    open_view(page, server, "moons", "trust", context="{")
    message = page.locator("#context-message")
    expect(message).to_have_text("expected a context as JSON, such as [0,0]")
    page.locator("#context").fill("[1, 2]")
    page.locator("#context").blur()
    expect(message).to_contain_text("context")
    expect(message).not_to_contain_text("JSON, such")
    expect(page.locator("#trip-of-message")).to_have_count(0)


@AT_LENGTH
def test_rows_of_ones_own_are_whole_each(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "trust", trip="own")
    page.locator("#trip-rows").fill("[[1, 2, 3], [4]]")
    page.get_by_role("button", name="Encode and decode").click()
    expect(page.locator("#trip-rows-message")).to_have_text(
        "expected rows of 2 numbers, row 0 has 3"
    )
    page.locator("#trip-rows").fill("[[1, 2], [3, 4]]")
    page.get_by_role("button", name="Encode and decode").click()
    expect(page.locator("#trip-result")).to_contain_text("2 rows of 2 numbers")


@AT_LENGTH
def test_ledger_says_that_no_row_has_a_density(server: RunningServer, page: Page) -> None:
    with_rules(
        page,
        """{ path: /^log_prob$/,
             edit: answer => ({ ...answer, log_prob: answer.log_prob.map(() => null) }) }""",
    )
    open_view(page, server, "moons", "trust", **{"trip-count": 2})
    expect(page.locator("#ledger-words")).to_contain_text("None of these rows has a density")


@AT_LENGTH
def test_rate_is_unknown_after_a_pause(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "live")
    rate = page.locator("#live-models tr:nth-child(2) td").first
    expect(rate).to_have_text("–")
    page.locator("#live-pause").click()
    page.evaluate("(then => { Date.now = () => then() + 20000; })(Date.now.bind(Date))")
    page.locator("#live-pause").click()
    expect(page.locator("#live-seen")).to_contain_text(re.compile(r"seen for 2\d seconds"))
    expect(rate).to_have_text("–")


@AT_LENGTH
def test_views_of_latents_want_a_model_that_has_some(server: RunningServer, page: Page) -> None:
    operations = json.dumps(["log_prob", "sample"])
    card = f"{{ path: /models.moons$/, edit: card => ({{ ...card, operations: {operations} }}) }}"
    with_rules(page, card)
    open_view(page, server, "moons", "live")
    for view in ("density", "interpolate", "trust"):
        expect(page.locator(f"#tab-{view}")).to_be_disabled()
    expect(page.locator("#unfit")).to_contain_text("it does not encode and decode")

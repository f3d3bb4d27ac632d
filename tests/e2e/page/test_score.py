"""Rows of a file on the page: which are odd, and why; beside what the API says of them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until

pytestmark = MARKS

NIGHT = Path(__file__).parents[3] / "docs" / "night.csv"
ALPHA = 0.02
DROP = """text => {
    const held = new DataTransfer();
    held.items.add(new File([text], "night.csv", {type: "text/csv"}));
    const given = {dataTransfer: held, bubbles: true, cancelable: true};
    document.querySelector("#score-drop").dispatchEvent(new DragEvent("drop", given));
}"""
CELLS = """[...document.querySelectorAll("#score-table tr")]
    .map(row => [...row.cells].map(cell => cell.textContent))"""
FEATURES = CELLS.replace("score-table", "score-features")


def night() -> tuple[list[str], list[list[str]]]:
    head, *rows = csv.reader(NIGHT.read_text().splitlines())
    return head, rows


def asked(server: RunningServer, rows: list[list[str]], **fields: Any) -> dict[str, Any]:
    x = [[float(cell) for cell in row[:10]] for row in rows]
    answer = httpx.post(f"{server.url}/score", json={"model": "magic", "x": x, **fields})
    answer.raise_for_status()
    result: dict[str, Any] = answer.json()
    return result


def choose(page: Page, *files: Any) -> None:
    page.locator("#score-file").set_input_files(list(files))


def near(text: str, value: float) -> bool:
    return float(text) == pytest.approx(value, rel=1e-3)


def test_a_dropped_csv_is_judged_as_the_api_judges_it(server: RunningServer, page: Page) -> None:
    head, rows = night()
    # Columns in another order, and one that the model does not know among them.
    order = [10, *range(9, -1, -1)]
    lines = [[line[place] for place in order] for line in (head, *rows)]
    open_view(page, server, "magic", "score", alpha=ALPHA)
    page.evaluate(DROP, "\r\n".join(",".join(f'"{cell}"' for cell in line) for line in lines))
    answer = asked(server, rows, alpha=ALPHA, explain=10)
    found = sum(answer["is_anomaly"])
    expect(page.locator("#score-told")).to_contain_text(f"{found} of 200 rows flagged")
    expect(page.locator("#score-notes")).to_have_text("not used, and kept in the download: class")
    bound = f"{100 * answer['calibration']['fpr_upper95']:.3g} %"
    expect(page.locator("#score-bound")).to_contain_text(bound)

    worst = int(np.argmin(answer["p_value"]))
    heads, *shown = page.evaluate(CELLS)
    assert heads == ["row", "score", "p", "flagged", "class", "because of"]
    assert [float(line[2]) for line in shown] == pytest.approx(
        sorted(answer["p_value"])[:20], rel=1e-3
    )
    for row, score, p, flagged, kind, _ in shown:
        index = int(row)
        assert near(score, answer["score"][index])
        assert near(p, answer["p_value"][index])
        assert (flagged == "flagged") is answer["is_anomaly"][index]
        assert kind == rows[index][10]

    expect(page.locator("#score-why h3")).to_have_text(f"Why row {worst} (line {worst + 2})")
    _, *features = page.evaluate(FEATURES)
    for (name, value, expected, nats, _), reason in zip(
        features, answer["explanation"][worst], strict=True
    ):
        assert name == reason["feature"]
        assert near(value, reason["value"])
        assert near(expected, reason["expected"])
        assert float(nats) == pytest.approx(reason["nats"], abs=0.006)

    with page.expect_download() as saved:
        page.locator("#score-save").click()
    said = list(csv.DictReader(Path(saved.value.path()).read_text().splitlines()))
    for index, line in enumerate(said):
        assert [line[name] for name in head] == rows[index]
        assert int(line["row"]) == index
        assert float(line["score"]) == answer["score"][index]
        assert float(line["p_value"]) == answer["p_value"][index]
        assert float(line["log_prob"]) == pytest.approx(answer["log_prob"][index], abs=1e-12)
        assert line["is_anomaly"] == str(answer["is_anomaly"][index]).lower()
        reasons = json.loads(line["explanation"] or "null")
        assert reasons == answer["explanation"][index]


def p_values_counted(server: RunningServer, model: str) -> int:
    text = httpx.get(f"{server.url}/metrics").text
    start = f'pushforward_score_p_value_count{{model="{model}",'
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return int(float(line.split()[-1]))


@AT_LENGTH
def test_what_is_looked_at_again_is_no_drift(server: RunningServer, page: Page) -> None:
    before = p_values_counted(server, "magic")
    open_view(page, server, "magic", "score", alpha=ALPHA)
    choose(page, str(NIGHT))
    expect(page.locator("#score-features")).to_be_visible()
    page.locator("#score-after").click()
    page.locator("#score-rate").fill("0.3")
    page.locator("#score-rate").blur()
    with page.expect_download():
        page.locator("#score-save").click()
    assert p_values_counted(server, "magic") - before == 200
    before = p_values_counted(server, "digits-glow")
    open_view(page, server, "digits-glow", "score")
    choose(page, {"name": "3.png", "mimeType": "image/png", "buffer": picture(server, 3)})
    until(page, "document.querySelectorAll('#score-why canvas').length === 2")
    assert p_values_counted(server, "digits-glow") - before == 1


# Colours of a column of the plot, from its top to its foot: alpha is not drawn.
COLUMN = """score => {
    const host = document.querySelector("#score-plot");
    const {first, width, count} = host.dataset;
    const box = host.querySelector(".u-over").getBoundingClientRect();
    const canvas = host.querySelector("canvas");
    const outer = canvas.getBoundingClientRect();
    const share = (score - first) / (width * count);
    const at = Math.round(box.left - outer.left + share * box.width);
    const tall = Math.round(box.height);
    // Read often: of a copy.
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const pen = copy.getContext("2d", {willReadFrequently: true});
    pen.drawImage(canvas, 0, 0);
    const {data} = pen
        .getImageData(at, Math.round(box.top - outer.top), 1, tall);
    return Array.from({length: tall}, (_, y) => [...data.slice(4 * y, 4 * y + 4)]);
}"""


@AT_LENGTH
def test_bars_and_threshold_are_where_the_numbers_are(server: RunningServer, page: Page) -> None:
    open_view(page, server, "magic", "score", alpha=ALPHA)
    choose(page, str(NIGHT))
    expect(page.locator("#score-why h3")).to_be_visible()
    told = httpx.get(f"{server.url}/models/magic/calibration?alpha={ALPHA}").json()
    until(page, "document.querySelector('#score-plot').dataset.most")
    data = page.evaluate("({...document.querySelector('#score-plot').dataset})")
    first, width, count, most = (float(data[name]) for name in ("first", "width", "count", "most"))
    assert told["histogram"]["edges"][0] == pytest.approx(first + width)

    def is_orange(pixel: list[int]) -> bool:
        red, green, blue, alpha = pixel
        return alpha > 100 and red > green + 60 > blue + 60

    assert sum(map(is_orange, page.evaluate(COLUMN, told["threshold"]))) > 180
    assert sum(map(is_orange, page.evaluate(COLUMN, told["threshold"] - width / 2))) == 0

    scores = np.array(asked(server, night()[1])["score"])
    bins = np.clip((scores - first) // width, 0, count - 1).astype(int)
    for index in (*range(4, 12), int(count) - 3):
        pixels = np.array(page.evaluate(COLUMN, first + (index + 0.5) * width))
        share = np.mean(bins == index)
        # Blue stands before grey, and grey is grey: as much blue as red.
        blue = np.count_nonzero(
            (pixels[:, 2].astype(int) - pixels[:, 0] > 40) & (pixels[:, 3] > 60)
        )
        assert blue == pytest.approx(len(pixels) * share / most, abs=4), index


@AT_LENGTH
def test_parquet_gives_what_csv_gives(server: RunningServer, page: Page, tmp_path: Path) -> None:
    table = pyarrow.csv.read_csv(NIGHT)
    open_view(page, server, "magic", "score")
    shown = []
    choose(page, str(NIGHT))
    for codec in (None, "snappy", "zstd", "none"):
        if codec is not None:
            pyarrow.parquet.write_table(table, tmp_path / f"{codec}.parquet", compression=codec)
            page.evaluate("document.querySelector('#score-why').replaceChildren()")
            choose(page, str(tmp_path / f"{codec}.parquet"))
        expect(page.locator("#score-why h3")).to_be_visible()
        until(page, "document.querySelector('#score-table tbody tr').lastChild.textContent")
        shown.append([line[:5] for line in page.evaluate(CELLS)])
    assert len(shown[0]) == 21
    assert all(one == shown[0] for one in shown[1:])
    pyarrow.parquet.write_table(table, tmp_path / "gzip.parquet", compression="gzip")
    choose(page, str(tmp_path / "gzip.parquet"))
    expect(page.locator("#score-file-message")).to_contain_text("compressed by GZIP")


def picture(server: RunningServer, seed: int) -> bytes:
    query = {"model": "digits-glow", "num_samples": "1", "seed": str(seed)}
    answer = httpx.post(f"{server.url}/sample", params=query, headers={"Accept": "image/png"})
    return answer.content


@AT_LENGTH
def test_pictures_have_their_heat_maps(server: RunningServer, page: Page) -> None:
    wrong = io.BytesIO()
    Image.new("L", (30, 20)).save(wrong, "PNG")
    good = picture(server, 3)
    open_view(page, server, "digits-glow", "score")
    choose(
        page,
        {"name": "good.png", "mimeType": "image/png", "buffer": good},
        {"name": "wrong.png", "mimeType": "image/png", "buffer": wrong.getvalue()},
    )
    expect(page.locator("#score-file-message")).to_have_text(
        "1 of 2 have no score: wrong.png: x: expected a picture of 28 x 28 pixels "
        "(width x height), got 30 x 20"
    )
    # The first one of a server loads torch.
    until(page, "document.querySelectorAll('#score-why canvas').length === 2")
    query = {"model": "digits-glow"}
    headers = {"Content-Type": "image/png"}
    said = httpx.post(f"{server.url}/score", params=query, headers=headers, content=good).json()
    _, one, two = page.evaluate(CELLS)
    assert one[:2] == ["0", "good.png"]
    assert near(one[2], said["score"][0])
    assert near(one[3], said["p_value"][0])
    assert two[1:4] == ["wrong.png", "none", "none"]
    headers["Accept"] = "image/png"
    heat = httpx.post(f"{server.url}/score", params=query, headers=headers, content=good)
    for index, wanted in enumerate((good, heat.content)):
        drawn = page.evaluate(
            f"""[...document.querySelectorAll("#score-why canvas")[{index}].getContext("2d")
                .getImageData(0, 0, 28, 28).data]"""
        )
        pixels = np.asarray(Image.open(io.BytesIO(wanted)).convert("RGB"))
        assert np.array_equal(np.reshape(drawn, (28, 28, 4))[..., :3], pixels)
    expect(page.locator("#score-why")).to_contain_text("nats a level")


def test_wrong_files_say_what_is_wrong(server: RunningServer, page: Page, tmp_path: Path) -> None:
    head, rows = night()
    text = "\n".join(",".join(line) for line in (head, *rows[:5]))
    few = "\n".join(",".join(line[1:]) for line in (head, *rows[:5]))
    words = text.replace(rows[2][0], "many")
    whole = "\n".join(",".join(["far", *line[1:]]) for line in rows[:3])
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(50 * 2**20)
    open_view(page, server, "magic", "score")
    for name, content, message in (
        ("essay.txt", b"Dear reader,\nthis is no table.\n", "no column fLength, fWidth"),
        ("few.csv", few.encode(), "the file has no column fLength: expected fLength, fWidth"),
        ("words.csv", words.encode(), 'row 2 (line 4): "many" in fLength is no number'),
        ("whole.csv", f"{','.join(head)}\n{whole}".encode(), "column fLength holds text, such as"),
        (
            "bare.csv",
            "\n".join(text.split("\n")[1:]).replace("h", "1").replace("g", "2").encode(),
            "the first line has to name the columns",
        ),
        ("head.csv", ",".join(head).encode(), "the file has no rows"),
        ("commas.csv", ",".join(head).encode() + b"\n" + b"1,5," * 10 + b"g\n", "decimal commas"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("picture.png", picture(server, 1), "and no pictures"),
        ("cut.parquet", b"PAR1" + bytes(40), "this Parquet file is damaged"),
        ("other.bin", bytes(range(256)), "got a file of another kind"),
        ("cut.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
    ):
        choose(page, {"name": name, "mimeType": "", "buffer": content})
        expect(page.locator("#score-file-message")).to_contain_text(message)
        expect(page.locator("#score-file")).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#score-result")).to_be_visible(visible=name == "words.csv")
    choose(page, str(large))
    expect(page.locator("#score-file-message")).to_contain_text("and this page takes 32 MB")
    # Semicolons and decimal commas are read, and told.
    semicolons = "\n".join(";".join(line) for line in (head, *rows[:5])).replace(".", ",")
    choose(page, {"name": "semi.csv", "mimeType": "", "buffer": semicolons.encode()})
    expect(page.locator("#score-notes")).to_contain_text("decimal commas read as points")
    expect(page.locator("#score-told")).to_contain_text("of 5 rows flagged")
    expect(page.locator("#score-file-message")).to_be_empty()
    answer = asked(server, rows[:5])
    assert near(page.evaluate(CELLS)[1][1], max(answer["score"]))


@AT_LENGTH
def test_the_keyboard_suffices(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "score", alpha=0.00001)
    page.locator("#score-file").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#score-told")).to_contain_text("of 200 rows flagged")
    # 5,000 calibration rows promise no less.
    expect(page.locator("#score-rate")).to_have_value("0.0002")
    page.locator("#score-rate").fill("0.01")
    page.keyboard.press("Enter")
    expect(page.locator("#score-bound")).to_contain_text("1 % are flagged falsely")
    page.locator("#score-slider").focus()
    before = page.locator("#score-bound").inner_text()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#score-rate")).to_have_value("0.016")
    expect(page.locator("#score-bound")).not_to_have_text(before)
    assert "alpha=0.016" in page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("#score-table th button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#score-table th").first).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("#score-table th button").first).to_be_focused()
    assert [line[0] for line in page.evaluate(CELLS)[1:4]] == ["0", "1", "2"]
    page.locator("#score-table td button").nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#score-why h3")).to_have_text("Why row 2")
    page.locator("#score-after").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#score-range")).to_have_text("21 to 40 of 200")


@AT_LENGTH
@pytest.mark.parametrize("model", ["moons", "pinwheel"])
def test_a_row_far_away_is_explained(server: RunningServer, page: Page, model: str) -> None:
    rows = [[0.5, 0.25], [6, -0.5], [1, 0]]
    text = "\n".join(("x1,x2", *(f"{a},{b}" for a, b in rows)))
    open_view(page, server, model, "score")
    choose(page, {"name": "rows.csv", "mimeType": "text/csv", "buffer": text.encode()})
    expect(page.locator("#score-why h3")).to_have_text("Why row 1 (line 3)")
    given = {"model": model, "x": rows, "explain": 2}
    answer = httpx.post(f"{server.url}/score", json=given, timeout=30).json()
    _, *features = page.evaluate(FEATURES)
    for (name, value, expected, nats, _), reason in zip(
        features, answer["explanation"][1], strict=True
    ):
        assert name == reason["feature"]
        assert near(value, reason["value"])
        assert float(expected) == pytest.approx(reason["expected"], rel=1e-3, abs=1e-3)
        assert float(nats) == pytest.approx(reason["nats"], abs=0.006)


@AT_LENGTH
def test_the_rate_of_discoveries_decides_as_the_api_does(server: RunningServer, page: Page) -> None:
    rows = night()[1]
    open_view(page, server, "magic", "score", alpha=0.2, by="fdr")
    choose(page, str(NIGHT))
    answer = asked(server, rows, fdr=0.2)
    found = sum(answer["is_anomaly"])
    assert 0 < found < 20
    expect(page.locator("#score-told")).to_contain_text(f"{found} of 200 rows flagged")
    with page.expect_download() as saved:
        page.locator("#score-save").click()
    said = list(csv.DictReader(Path(saved.value.path()).read_text().splitlines()))
    assert [float(line["q_value"]) for line in said] == answer["q_value"]
    page.set_viewport_size({"width": 375, "height": 800})
    until(page, "document.documentElement.scrollWidth <= innerWidth")


@AT_LENGTH
def test_a_slow_model_is_given_up(server: RunningServer, page: Page) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30_000, 2)).astype(np.float32)

    def file(count: int) -> Any:
        buffer = io.BytesIO()
        np.save(buffer, rows[:count])
        return {"name": "rows.npy", "mimeType": "", "buffer": buffer.getvalue()}

    open_view(page, server, "pinwheel", "score")
    choose(page, file(30_000))
    # The first pieces are drawn while the others are computed.
    until(page, "document.querySelector('#score-bar').value > 0")
    expect(page.locator("#score-plot canvas")).to_be_visible()
    page.locator("#score-cancel").click()
    expect(page.locator("#score-notes")).to_have_text("Given up.")
    expect(page.locator("#score-result")).to_be_hidden()
    choose(page, file(30))
    expect(page.locator("#score-told")).to_contain_text("of 30 rows flagged")
    answer = httpx.post(
        f"{server.url}/score", json={"model": "pinwheel", "x": rows[:30].tolist()}, timeout=30
    ).json()
    assert near(page.evaluate(CELLS)[1][2], min(answer["p_value"]))


@AT_LENGTH
def test_a_phone_shows_why_a_row_is_flagged(server: RunningServer, page: Page) -> None:
    page.set_viewport_size({"width": 375, "height": 800})
    open_view(page, server, "magic", "score", alpha=ALPHA)
    choose(page, str(NIGHT))
    until(page, "document.querySelector('#score-table tbody tr')?.lastChild.textContent")
    box = page.locator("#score-table tbody tr td:last-child").first.bounding_box()
    above = page.locator("#score-table tbody tr td").first.bounding_box()
    assert box is not None
    assert above is not None
    assert box["x"] + box["width"] <= 375
    assert box["y"] >= above["y"] + above["height"] - 1


@AT_LENGTH
def test_the_class_that_a_picture_is_scored_as_is_said(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-classes", "score", **{"class": 2})
    expect(page.locator("#score-takes")).to_contain_text("none is cropped or resized")
    choose(page, {"name": "3.png", "mimeType": "image/png", "buffer": picture(server, 3)})
    expect(page.locator("#score-bound")).to_contain_text("Scored as class 2; choose another above")

"""What the view between two rows shows, and the same asked from the API."""

import io
import math
import time
from base64 import b64decode
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from benchmarks.process import RunningServer

Array = NDArray[Any]
NPY = "application/x-npy"


def ask(server: RunningServer, operation: str, rows: Array | None, **fields: str | int) -> Array:
    """Ask the API, in .npy: the first output."""
    body, headers = io.BytesIO(), {"Accept": NPY}
    if rows is not None:
        np.save(body, rows)
        headers["Content-Type"] = NPY
    answer = httpx.post(
        f"{server.url}/{operation}", params=fields, content=body.getvalue(), headers=headers
    )
    assert answer.status_code == 200, answer.text
    array: Array = np.load(io.BytesIO(answer.content))
    return array


def sample(server: RunningServer, model: str, seed: int, **fields: str | int) -> Array:
    return ask(server, "sample", None, **{"num_samples": 1, **fields}, model=model, seed=seed)


def slerp(a: Array, b: Array, t: float) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    angle = math.acos(a @ b / (lengths[0] * lengths[1]))
    turned = math.sin((1 - t) * angle) * a / lengths[0] + math.sin(t * angle) * b / lengths[1]
    return turned / math.sin(angle) * ((1 - t) * lengths[0] + t * lengths[1])


def path(
    server: RunningServer, model: str, ends: Array, places: Array, **fields: str | int
) -> tuple[Array, Array]:
    """Decode the path between two rows: the rows, and their log p."""
    first, last = ask(server, "encode", ends, model=model, **fields)
    z = np.stack([slerp(first, last, t) for t in places]).astype(np.float32)
    rows = ask(server, "decode", z, model=model, **fields)
    return rows, ask(server, "log_prob", rows, model=model, **fields)


def wait_for_film(page: Page, frames: int) -> list[str]:
    """Wait for all of the film; give what is said of its frames."""
    expect(page.locator("#way")).to_contain_text(f"{frames} frames.")
    return page.locator("#film li").all_inner_texts()


def pictures(page: Page, canvases: str) -> Array:
    """What is on canvases of one size: (how many, height, width, RGBA)."""
    code = f'[...document.querySelectorAll("{canvases}")].map(canvas => canvas.toDataURL())'
    bodies = [b64decode(address.split(",")[1]) for address in page.evaluate(code)]
    shown = [Image.open(io.BytesIO(body)).convert("RGBA") for body in bodies]
    return np.stack([np.asarray(picture, np.int64) for picture in shown])


def pixels(page: Page, canvases: str) -> Array:
    """Their grey."""
    return pictures(page, canvases)[..., 0]


def wait_for_pixels(page: Page, canvas: str, wanted: Array, off: int) -> None:
    """Wait for a canvas to have this grey: what is said beside it may be of an earlier one."""
    end = time.monotonic() + 30
    shown: Array | None = None
    while shown is None or np.abs(shown - wanted).max() > off:
        assert time.monotonic() < end, (canvas, shown)
        page.wait_for_timeout(25)
        shown = pixels(page, canvas)[0] if page.locator(canvas).count() else None


def log_probs(texts: list[str]) -> list[float]:
    return [float(text.split("\n")[-1].replace(",", "")) for text in texts]


def png(levels: Array, size: tuple[int, int] | None = None) -> bytes:
    """Write grey levels as a PNG, of another size where one is given."""
    buffer = io.BytesIO()
    picture = Image.fromarray(levels.astype(np.uint8))
    (picture.resize(size, Image.Resampling.NEAREST) if size else picture).save(buffer, "PNG")
    return buffer.getvalue()


def choose(page: Page, end: str, name: str, body: bytes, media: str = "image/png") -> None:
    """Give a file as an end."""
    page.locator(f"#from-{end}").select_option("file")
    page.locator(f"#file-{end}").set_input_files(
        FilePayload(name=name, mimeType=media, buffer=body)
    )

"""The zoo on a real server: what a stranger does first."""

import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.process import RunningServer, serving

# One process for all: the server of the zoo takes longer to start than they take.
pytestmark = pytest.mark.xdist_group("zoo_server")

FOLDER = Path(__file__).parents[2] / "models" / "zoo"
FOLDERS = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))
    for path in FOLDER.glob("*/config.json")
}
ZOO = sorted(FOLDERS)
# Every digit is asked for as a 3.
LABELS = {name: 3 for name, facts in FOLDERS.items() if facts["context_shape"] is not None}
# A tenth of a second a sample.
FEW_ROWS = {"digits-pixelcnn": 1}
# Half of what a second server takes to start; digits-classes goes patch by patch too.
LONG_TO_START = ("digits-pixelcnn", "digits-tarflow")
zoo = pytest.mark.parametrize("model", ZOO)

# float32 numbers of up to some thousand nats, and continuous flows at their served tolerance.
RELATIVE = 2e-5


def about(model: str) -> dict[str, Any]:
    return {"model": model, **({"context": LABELS[model]} if model in LABELS else {})}


def post(client: httpx.Client, call: str, model: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/{call}", json={**about(model), **body})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def draw(client: httpx.Client, model: str, rows: int = 6, seed: int = 11) -> dict[str, Any]:
    return post(client, "sample", model, num_samples=rows, seed=seed)


def test_the_zoo_is_what_the_issue_asks_for() -> None:
    assert len(ZOO) >= 5


def test_ready_within_what_two_cores_do_in_15_seconds(zoo_server: RunningServer) -> None:
    """A guard beside other tests; bench_footprint measures on a quiet machine."""
    assert zoo_server.cpu_seconds_to_ready < 2 * 15


@zoo
def test_log_prob_is_base_plus_log_det(client: httpx.Client, model: str) -> None:
    x = draw(client, model)["x"]
    log_prob = np.array(post(client, "log_prob", model, x=x)["log_prob"])
    encoded = post(client, "encode", model, x=x)
    z = np.array(encoded["z"])
    base = -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
    np.testing.assert_allclose(
        log_prob, base + np.array(encoded["log_det"]), rtol=RELATIVE, atol=RELATIVE
    )


@zoo
def test_decode_inverts_encode(client: httpx.Client, model: str) -> None:
    x = np.array(draw(client, model)["x"])
    encoded = post(client, "encode", model, x=x.tolist())
    decoded = post(client, "decode", model, z=encoded["z"])
    scale = max(1.0, float(np.abs(x).max()))
    np.testing.assert_allclose(np.array(decoded["x"]), x, atol=2e-3 * scale)
    np.testing.assert_allclose(
        decoded["log_det"], -np.array(encoded["log_det"]), rtol=1e-4, atol=1e-3
    )


@zoo
def test_a_sample_comes_with_its_log_prob(client: httpx.Client, model: str) -> None:
    sample = draw(client, model)
    scored = post(client, "log_prob", model, x=sample["x"])
    np.testing.assert_allclose(sample["log_prob"], scored["log_prob"], rtol=1e-4, atol=2e-3)


@zoo
def test_a_sample_without_log_prob_is_the_same(client: httpx.Client, model: str) -> None:
    sample = post(client, "sample", model, num_samples=6, seed=11, return_log_prob=False)
    assert "log_prob" not in sample
    np.testing.assert_allclose(sample["x"], draw(client, model)["x"], rtol=1e-4, atol=1e-3)


@zoo
def test_one_seed_is_one_sample_alone_and_in_a_crowd(client: httpx.Client, model: str) -> None:
    rows = FEW_ROWS.get(model, 6)
    alone = draw(client, model, rows)
    with ThreadPoolExecutor(16) as pool:
        seeds = [11, *range(14), 11]
        crowd = list(pool.map(lambda seed: draw(client, model, rows, seed), seeds))
    for answer in (crowd[0], crowd[-1]):
        np.testing.assert_allclose(answer["x"], alone["x"], rtol=1e-4, atol=1e-4)
    assert not np.allclose(crowd[1]["x"], alone["x"], rtol=1e-2)


def test_one_seed_is_one_sample_after_a_restart(
    client: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = {model: draw(client, model)["x"] for model in ZOO if model not in LONG_TO_START}
    folders = [str(FOLDER / model) for model in before]
    with (
        serving(tmp_path_factory.mktemp("again") / "server.log", *folders) as server,
        server.client() as http,
    ):
        for model, x in before.items():
            again = draw(http, model, len(x))["x"]
            np.testing.assert_allclose(again, x, rtol=1e-4, atol=1e-4)
        assert server.terminate() == 0


@zoo
def test_pictures_of_image_models(client: httpx.Client, model: str) -> None:
    card = client.get(f"/models/{model}").json()
    answer = client.post(
        "/sample",
        json={**about(model), "num_samples": 9, "seed": 1},
        headers={"Accept": "image/png"},
    )
    if card["num_levels"] is None:
        assert answer.status_code == 406
        assert answer.json()["code"] == "not_acceptable"
        return
    assert answer.headers["content-type"] == "image/png"
    height, width = card["event_shape"][1:]
    grid = Image.open(io.BytesIO(answer.content))
    assert grid.width >= 3 * width
    assert grid.height >= 3 * height
    one = client.post(
        "/sample", json={**about(model), "seed": 1}, headers={"Accept": "image/png"}
    ).content
    scored = client.post(
        "/log_prob", params=about(model), content=one, headers={"Content-Type": "image/png"}
    )
    assert scored.status_code == 200
    assert math.isfinite(scored.json()["bits_per_dim"][0])


def test_a_table_in_another_order_gives_the_same_bytes(client: httpx.Client) -> None:
    names = client.get("/models/magic").json()["feature_names"]
    x = draw(client, "magic")["x"]
    wanted = client.post("/log_prob", json={"model": "magic", "x": x}).content
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    columns, moved = [names[place] for place in order], np.array(x)[:, order].tolist()
    by_name = [dict(zip(columns, row, strict=True)) for row in moved]
    query = {"model": "magic", "columns": ",".join(columns)}
    for answer in (
        client.post("/log_prob", json={"model": "magic", "x": by_name}),
        client.post("/log_prob", json={"model": "magic", "columns": columns, "x": moved}),
        client.post("/log_prob", params=query, json={"x": moved}),
    ):
        assert answer.content == wanted
    by_name[2]["fLenght"] = by_name[2].pop("fLength")
    answer = client.post("/log_prob", json={"model": "magic", "x": by_name})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")
    assert answer.json()["detail"].endswith("did you mean 'fLength'?")

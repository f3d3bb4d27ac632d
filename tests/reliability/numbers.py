"""Lines 14 to 19: values at the ends, rows and their neighbours, seeds."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import torch

import models
from benchmarks.process import serving
from models.ode.call import SolveCall
from tests.e2e.test_hostile import NPY, saved
from tests.reliability.registry import MODELS, ZOO, Ground, expect, suite, trial
from tests.service.test_hostile import loaded

BOUND = 3.0
# Neighbours under `--batching fast`: float32 sums in another order.
FAST_ROUNDING = 1e-4


def _shape(http: httpx.Client, model: str) -> tuple[int, ...]:
    return tuple(http.get(f"/models/{model}").json()["event_shape"])


@trial(14, "1e30, 1e38 and denormals beside an ordinary row, every model", hostile=True)
def extremes(ground: Ground) -> str:
    nulls = asked = 0
    with ground.client() as http:
        for model in MODELS:
            shape = _shape(http, model)
            for value in (1e19, 1e30, 3.4e38, 1e-45):
                x = np.stack([np.full(shape, value), np.ones(shape)])
                answer = http.post("/log_prob", json={"model": model, "x": x.tolist()})
                expect(answer.status_code == 200, f"{model} at {value}: {answer.text[:200]}")
                content = loaded(answer.content)
                hostile, ordinary = content["log_prob"]
                expect(ordinary is not None, f"{model} at {value}: the neighbour is null")
                if hostile is None:
                    named = 0 in content.get("non_finite", [])
                    expect(named, f"{model} at {value}: null without a reason")
                    nulls += 1
                asked += 1
    return f"{asked} answers, {nulls} null and named, the neighbour always answered"


@trial(15, "knots and edges of a spline, pixels 0 and 255: against float64")
def edges(ground: Ground) -> str:
    torch.manual_seed(0)
    config = {"event_shape": [2], "num_layers": 2, "num_bins": 5, "bound": BOUND}
    flow = models.build("nsf", config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = ground.folder / "spline"
    models.save(flow.eval(), folder)
    beyond = float(np.nextafter(np.float32(BOUND), np.float32(9)))
    cases = {folder: (-BOUND, BOUND, beyond, 0.0, 50.0), ZOO / "digits-nice": (0.0, 255.0)}
    log, worst = ground.folder / "edges.log", 0.0
    with serving(log, *map(str, cases)) as server, server.client() as http:
        for model, values in cases.items():
            shape = _shape(http, model.name)
            x = np.stack([np.full(shape, value, np.float32) for value in values])
            answer = http.post("/log_prob", json={"model": model.name, "x": x.tolist()}).json()
            reference = models.load(model).double().eval()
            with torch.no_grad():
                wanted = reference.log_prob(torch.from_numpy(x).double()).numpy()
            error = np.abs(np.array(answer["log_prob"]) - wanted) / np.maximum(1, np.abs(wanted))
            worst = max(worst, float(error.max()))
            expect(np.isfinite(wanted).all() and error.max() < 1e-5, f"{model.name}: {error}")
    return f"largest error {worst:.1e} relative to max(1, |log p|)"


@trial(16, "continuous rows beyond the solver's budget beside ordinary ones")
def unsolved(ground: Ground) -> str:
    folder, rows, is_solved = _stiff(ground)
    log = ground.folder / "stiff.log"
    with serving(log, str(folder), "--engine", "torch") as server, server.client() as http:
        both = http.post("/encode", json={"x": rows.tolist()}).json()
        alone = http.post("/encode", json={"x": rows[is_solved].tolist()}).json()
    failed = [failure["row"] for failure in both["failures"]]
    expect(failed == np.flatnonzero(~is_solved).tolist(), both["failures"])
    off = 0.0
    for output in ("z", "log_det"):
        kept = [row for row, solved in zip(both[output], is_solved, strict=True) if solved]
        off = max(off, float(np.abs(np.array(kept) - np.array(alone[output])).max()))
    expect(off <= FAST_ROUNDING, f"the neighbours changed by {off:.1e}")
    return f"{len(failed)} of {len(rows)} rows: {both['failures'][0]}; neighbours off by {off:.0e}"


def _stiff(ground: Ground) -> tuple[Path, np.ndarray, np.ndarray]:
    """A model whose budget of evaluations is spent by the hardest of 64 rows."""
    torch.manual_seed(0)
    flow = models.build("ffjord", {"event_shape": [2], "hidden_features": [16]})
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(2 * torch.randn_like(parameter))
    rows = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    call = SolveCall()
    with torch.no_grad():
        flow.eval().encode(torch.from_numpy(rows), call=call)
    taken = sum(report.evaluations.numpy() for report in call.reports)
    budget = int(taken.max()) - 1
    config = {**flow.config, "solver": {"max_evaluations": budget}}
    rebuilt = models.build("ffjord", config)
    rebuilt.load_state_dict(flow.state_dict())
    folder = ground.folder / "stiff"
    models.save(rebuilt.eval(), folder)
    call = SolveCall()
    with torch.no_grad():
        rebuilt.encode(torch.from_numpy(rows), call=call)
    return folder, rows, call.reports[0].status.numpy() == 0


suite(
    16,
    "the same on the graph: neighbours the same to the last bit",
    "tests/models/onnx/test_continuous.py",
)


@trial(17, "16 requests at once, one of them poison: NaN, wrong shape, 1e38", hostile=True)
def poison(ground: Ground) -> str:
    rounds = ground.count(50, 5)
    good = {"model": "moons", "x": [[0.0, 1.0]]}
    bad: list[tuple[bytes, int]] = [
        (b'{"model": "moons", "x": [[NaN, 1]]}', 422),
        (b'{"model": "moons", "x": [[1, 2, 3]]}', 422),
        (b'{"model": "moons", "x": [[1e38, 1]]}', 200),
    ]
    wanted = ground.control()[0]
    headers = {"Content-Type": "application/json"}
    with ground.client() as http, ThreadPoolExecutor(16) as pool:
        for turn in range(rounds):
            body, status = bad[turn % len(bad)]
            bodies = [json.dumps(good).encode()] * 16
            bodies[turn % 16] = body
            answers = list(
                pool.map(lambda b: http.post("/log_prob", content=b, headers=headers), bodies)
            )
            codes = [answer.status_code for answer in answers]
            found = codes.pop(turn % 16)
            expect(found in (status, 400) and set(codes) == {200}, (found, codes))
            del answers[turn % 16]
            values = [answer.json()["log_prob"][0] for answer in answers]
            expect(np.allclose(values, wanted, atol=FAST_ROUNDING), values)
    return f"{15 * rounds} right answers, {rounds} poisoned ones refused or null"


@trial(18, "one row alone, in batches of 2, 7 and 64, first, middle and last")
def neighbours(ground: Ground) -> str:
    names = ("moons", "pinwheel", "magic", "digits-nice")
    found = []
    for batching in ("invariant", "fast"):
        flags = ["--batching", batching, *(str(ZOO / name) for name in names)]
        log, worst = ground.folder / f"{batching}.log", 0.0
        with serving(log, *flags) as server, server.client() as http:
            for name in names:
                shape = _shape(http, name)
                rng = np.random.default_rng(1)
                pixels = rng.integers(0, 256, (64, *shape)).astype(np.float32)
                rows = pixels if len(shape) == 3 else rng.normal(size=(64, *shape))
                rows = rows.astype(np.float32)
                alone = _encoded(http, name, rows[:1])
                for size in (2, 7, 64):
                    for place in {0, size // 2, size - 1}:
                        batch = rows[:size].copy()
                        batch[[0, place]] = batch[[place, 0]]
                        row = _encoded(http, name, batch)[place : place + 1]
                        worst = max(worst, float(np.abs(row - alone).max()))
                        same = row.tobytes() == alone.tobytes()
                        expect(batching == "fast" or same, f"{name}: {size}, place {place}")
        expect(worst <= FAST_ROUNDING * 10, f"{batching}: off by {worst}")
        found.append(f"{batching}: off by at most {worst:.1e}")
    return "; ".join(found)


def _encoded(http: httpx.Client, model: str, rows: np.ndarray) -> np.ndarray:
    headers = {"Content-Type": NPY, "Accept": NPY}
    answer = http.post(f"/encode?model={model}", content=saved(rows), headers=headers)
    expect(answer.status_code == 200, answer.text)
    header = answer.content.index(b"\n") + 1
    return np.frombuffer(answer.content[header:], np.float32).reshape(len(rows), -1)


@trial(19, "one seed alone, in company, in parts; no seed", hostile=True)
def seeds(ground: Ground) -> str:
    body = {"model": "moons", "num_samples": 3, "seed": 7}
    with ground.client() as http, ThreadPoolExecutor(16) as pool:
        alone = http.post("/sample", json=body).json()["x"]
        crowd = [body if turn % 2 else {**body, "seed": turn} for turn in range(64)]
        answers = list(pool.map(lambda b: http.post("/sample", json=b).json()["x"], crowd))
        for sent, came in zip(crowd, answers, strict=True):
            same = np.allclose(came, alone, atol=1e-5)
            expect(same == (sent["seed"] == 7), f"seed {sent['seed']}: {came}")
        rows = np.array(http.post("/sample", json={**body, "num_samples": 4000}).json()["x"])
        expect(np.allclose(rows[:3], alone, atol=1e-5), "the first rows change with their number")
        correlation = abs(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1])
        expect(correlation < 0.1, f"neighbouring rows correlate: {correlation:.2f}")
        drawn = [http.post("/sample", json={"model": "moons"}).json()["seed"] for _ in range(8)]
    expect(len(set(drawn)) == 8, drawn)
    return f"64 requests alike; neighbouring rows correlate by {correlation:.3f}; own seeds differ"

"""Lines 33, 34, 37 and 38: names, addresses, series and keys."""

import json
import re
import time

import httpx

from tests.e2e.test_hostile import PATHS, WRONG_KEY, ZOO, ask_by_path
from tests.reliability.registry import Ground, expect, suite, trial

NAMES = ("../x", "a;b", "a\\..\\b", "moons\0", "x" * 10_000, "m\u043e\u043ens", " moons", "moons\n")


@trial(33, "model names that climb, lie or are endless: in paths and in bodies", hostile=True)
def names(ground: Ground) -> str:
    asked = 0
    for name in PATHS:
        for status, text in ask_by_path(ground.server, name):
            expect(status in (404, 422), f"{name[:60]}: {status} {text[:100]!r}")
            asked += 1
    with ground.client() as http:
        for name in NAMES:
            answer = http.post("/log_prob", json={"model": name, "x": [[0, 1]]})
            expect(answer.status_code in (404, 422), f"{name[:20]!r}: {answer.status_code}")
            asked += 1
    return f"{asked} requests: 404 or 422"


suite(
    33,
    "the same with an eye on every file that is opened",
    "tests/service/test_hostile.py::test_a_name_touches_no_file_and_no_network",
)
suite(
    34,
    "paths and URLs in every field: nothing is fetched",
    "tests/service/test_hostile.py::test_no_address_is_ever_followed",
)


@trial(37, "/metrics at 100 a second beside 10^5 names that nobody serves")
def series(ground: Ground) -> str:
    count = ground.count(100_000, 2_000)
    with ground.client() as http:
        before = len(http.get("/metrics").text.splitlines())
        scrapes, due = 0, time.monotonic()
        for index in range(count):
            answer = http.post("/log_prob", json={"model": f"nobody-{index}", "x": [[0, 1]]})
            expect(answer.status_code == 404, answer.text)
            if time.monotonic() >= due:
                due += 0.01
                expect(http.get("/metrics").status_code == 200, "no metrics")
                scrapes += 1
        lines = http.get("/metrics").text.splitlines()
    expect(not any("nobody-" in line for line in lines), "a name became a label")
    expect(len(lines) < before + 50, f"{before} lines became {len(lines)}")
    return f"{count:,} names, {scrapes:,} scrapes: {before} lines before, {len(lines)} after"


@trial(38, "keys that are missing, wrong or endless; what errors and logs tell", hostile=True)
def keys(ground: Ground) -> str:
    texts, asked = [], 0
    with httpx.Client(base_url=ground.server.url, timeout=60) as http:
        for headers in ({}, {"Authorization": f"Bearer {WRONG_KEY}"}, {"X-API-Key": "x" * 50_000}):
            for path in ("/metrics", "/models", f"/models/{WRONG_KEY}"):
                answer = http.get(path, headers=headers)
                expect(answer.status_code == 401, f"{path}: {answer.status_code}")
                texts.append(answer.text)
                asked += 1
        expect(http.get("/health/live").status_code == 200, "health wants a key")
    log = ground.server.log.read_text()
    said = [*texts, log.partition("serving on")[2]]
    expect(ground.key not in log + json.dumps(texts), "the key is told")
    expect(not any(str(ZOO) in text for text in said), "a path is told")
    wrong = re.sub(rf"/models/{WRONG_KEY}", "", "".join(said))
    expect(WRONG_KEY[:20] not in wrong, "a wrong key is told")
    return f"{asked} x 401; neither keys nor paths in answers or log"

"""Count what one request passes on its way through the service.

    python -m tools.follow_request [--json] [--root CHECKOUT]

A server runs in this process, with one model of the zoo. It is warmed up; then one POST /log_prob
with one JSON row is followed on each transport by a profile hook in every thread:

    fast path    a plain request on a connection that is kept
    asgi         the same with an Origin header, which the fast path leaves to uvicorn
    v2           the same row as a tensor of POST /v2/models/NAME/infer

What is counted, in `pushforward/` and `service/` (the flow's own mathematics is not a way):

file
    A module in which code ran for the request: a function of it was called, went on or called
    another. Methods that `dataclass` and `NamedTuple` generate belong to no file.
carrier
    A file in which the request, its rows or its answer were at hand, in a variable of a function;
    the others look something up, count or measure beside it.
hand-over
    A call from a function of one module to a function of another, each pair once. What stands
    between them and is not ours (uvicorn, starlette, asyncio's `to_thread`) is looked through; what
    the event loop or a thread begins has no caller and is no hand-over.
re-wrapping
    A class of ours of which an instance was made on the way that holds the request, its rows or its
    answer: through its own fields, containers, bound methods and other instances made on the way
    it leads to the body's bytes, the row, an array, the answer's bytes or the request's headers.
    Errors are none. An instance is new when it was not seen in the requests of the warm-up.

Something belongs to the request when it was seen in each of several requests of one kind that went
one way: what a timer does beside one of them does not. All wait in the queue: whether a row is
computed without waiting depends on what else the machine does.

Beside that: lines of the two folders (`pushforward/` was a part of `service/` once), and what a
further operation, engine, field or output format costs. An edit is a statement outside classes, or
a method or field in one, that has to name it. It is counted by an existing one (`sample`, `onnx`,
`columns` and `temperature`, `npz`), by identifiers and by strings that are the name. Its own file,
where it has one, is the one that is written anew and counts once.

At commit 498bb22 people counted 27 files, about 27 hand-overs and 13 re-wrappings on the fast path,
25, 35 and 12 through ASGI, 27, 33 and 11 through V2; this script counts 26, 64 and 11; 26, 57 and
11; 27, 57 and 13. They followed one line from layer to layer where every helper that is called
counts here, took for re-wrapped also a head that the connection knows already (it makes nothing
anew) and a bare tuple, and left out the models of V2's JSON and what the parser finds in a head.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools import request_trace
from tools.edits import EXISTING, FOLDERS, count_lines, find_edits

ROOT = Path(__file__).resolve().parent.parent

KINDS = ("files", "carriers", "hand_overs", "re_wrappings")


def measure(root: Path) -> dict[str, Any]:
    """Everything that is counted of a checkout."""
    edits = {kind: find_edits(root, name) for kind, name in EXISTING.items()}
    lines = {folder: count_lines(root, folder) for folder in FOLDERS}
    return {"transports": follow(root), "lines": lines, "edits": edits}


def follow(root: Path) -> dict[str, dict[str, list[str]]]:
    """Follow the requests, in a process that imports from the checkout."""
    command = [sys.executable, request_trace.__file__, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, check=True)
    ways: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return ways


def write_table(result: dict[str, Any]) -> str:
    """The counts as Markdown tables."""
    lines = [
        "| transport | files | carriers | hand-overs | re-wrappings |",
        "|---|---|---|---|---|",
    ]
    for name, way in result["transports"].items():
        lines.append(f"| {name} | {' | '.join(str(len(way[kind])) for kind in KINDS)} |")
    lines += ["", "| | edits | files |", "|---|---|---|"]
    for kind, edits in result["edits"].items():
        lines.append(f"| a further {kind} | {sum(edits.values())} | {len(edits)} |")
    lines += ["", "| folder | lines |", "|---|---|"]
    lines += [f"| `{folder}/` | {count} |" for folder, count in result["lines"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure one checkout."""
    parser = argparse.ArgumentParser(description="Count what one request passes on its way.")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout of the project")
    parser.add_argument("--json", action="store_true", help="all that was seen, as JSON")
    options = parser.parse_args()
    result = measure(options.root.resolve())
    print(json.dumps(result, indent=2) if options.json else write_table(result))


if __name__ == "__main__":
    main()

"""Serve a model of a checkout, and follow one request on each transport through the code.

    python request_trace.py CHECKOUT

A program of its own, which imports the checkout it is given and nothing beside it; what it counts
is defined in `tools.follow_request`.
"""

import contextlib
import importlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MethodType
from typing import Any

FOLDERS = ("pushforward", "service")
# Where a checkout has the function that serves until a signal: the layout of now, and of before.
ENTRY_POINTS = ("service.launch.main", "service.server")
MODEL = "moons"
ROW = [0.5178125, -0.2590625]
WARM_UP = 3
REPETITIONS = 5
MOST_REQUESTS = 60
START_SECONDS = 120.0
# After an answer: what is counted and logged once it is written. It is over when nothing of ours
# has run for so long, or at the latest after that.
SETTLE_SECONDS = 0.05
MOST_SETTLE_SECONDS = 1.0
# How deep an instance's fields are looked into, and how much of a container.
MOST_STEPS = 6
MOST_ITEMS = 16
# Frames that run callbacks: what is above them did not ask for what is below.
_LOOP_FILES = tuple(
    str(Path("asyncio") / name) for name in ("base_events.py", "events.py", "runners.py")
)
_INNER = re.compile(r"\.<locals>\.<(?:genexpr|listcomp|dictcomp|setcomp|lambda)>")

Pair = tuple[str, str]


@dataclass
class Trace:
    """What was seen of one request: modules, pairs of functions, and the instances made.

    carriers: modules in which the request, its rows or its answer were at hand.
    holders: classes of instances that hold them.
    """

    modules: set[str] = field(default_factory=set)
    carriers: set[str] = field(default_factory=set)
    pairs: set[Pair] = field(default_factory=set)
    instances: dict[int, Any] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)


class Follower:
    """A profile hook that writes down what runs while it is on.

    Args:
        root: of the checkout.
        marks: bytes of which the request and its answer are known.
    """

    def __init__(self, root: Path, marks: tuple[bytes, ...]) -> None:
        self._root = f"{root}{os.sep}"
        self._marks = marks
        self._old: dict[int, Any] = {}
        self._names: dict[str, str | None] = {}
        self._trace: Trace | None = None
        self._latest = 0.0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note one call or return."""
        if (trace := self._trace) is None or event not in ("call", "return"):
            return
        name = self._module(frame)
        if name is not None:
            self._latest = time.monotonic()
            trace.modules.add(name)
            if event == "call":
                self._note_call(trace, frame, name)
            for value in list(frame.f_locals.values()):
                self._note_value(trace, value)
                if name not in trace.carriers and self._holds(value, MOST_STEPS):
                    trace.carriers.add(name)
        if event == "return":
            self._note_value(trace, argument)

    @contextlib.contextmanager
    def following(self) -> Iterator[Trace]:
        """Follow what runs inside, and remember its instances as old."""
        trace = Trace()
        self._trace = trace
        try:
            yield trace
        finally:
            self._trace = None
            self._old |= trace.instances

    def settle(self) -> None:
        """Wait until what runs beside and after an answer is over."""
        ends_at = time.monotonic() + MOST_SETTLE_SECONDS
        while (now := time.monotonic()) < ends_at and now - self._latest < SETTLE_SECONDS:
            time.sleep(SETTLE_SECONDS / 5)

    def _note_call(self, trace: Trace, frame: FrameType, name: str) -> None:
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.endswith(_LOOP_FILES):
            above = self._module(caller)
            if above is not None:
                trace.modules.add(above)
                if above != name:
                    trace.pairs.add((_function(above, caller), _function(name, frame)))
                return
            caller = caller.f_back

    def _note_value(self, trace: Trace, value: Any, steps: int = 2) -> None:
        if isinstance(value, (list, tuple)) and steps:
            for item in value[:MOST_ITEMS]:
                self._note_value(trace, item, steps - 1)
        kind = type(value)
        if not _is_ours(kind) or id(value) in self._old:
            return
        trace.instances[id(value)] = value  # kept, so that no other object takes its id
        label = f"{kind.__module__}.{kind.__qualname__}"
        if label not in trace.holders and self._holds(value, MOST_STEPS):
            trace.holders.add(label)

    def _holds(self, value: Any, steps: int) -> bool:
        """Whether a value leads to the request, its rows or its answer."""
        if isinstance(value, (bytes, bytearray, str)):
            held = value.encode() if isinstance(value, str) else bytes(value)
            return any(mark in held for mark in self._marks)
        if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
            return bool(value.size)
        if isinstance(value, list) and value == ROW:
            return True
        if steps == 0 or id(value) in self._old:
            return False
        return any(self._holds(inner, steps - 1) for inner in _inside(value))

    def _module(self, frame: FrameType) -> str | None:
        """The project's module that a frame runs in, or None."""
        path = frame.f_code.co_filename
        if path not in self._names:
            inside = path.removeprefix(self._root) if path.startswith(self._root) else ""
            ours = inside.split(os.sep)[0] in FOLDERS
            self._names[path] = inside.removesuffix(".py").replace(os.sep, ".") if ours else None
        return self._names[path]


def _function(module: str, frame: FrameType) -> str:
    return f"{module}:{_INNER.sub('', frame.f_code.co_qualname)}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] in FOLDERS and not issubclass(kind, BaseException)


def _inside(value: Any) -> list[Any]:
    """What a container or an instance of ours holds directly."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()][:MOST_ITEMS]
    if isinstance(value, (list, tuple, set)):
        return list(value)[:MOST_ITEMS]
    if isinstance(value, MethodType):
        return list(getattr(value.__self__, "__dict__", {}).values())
    if not _is_ours(type(value)):
        return []
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    held = [getattr(value, name) for name in slots if hasattr(value, name)]
    return held + list(getattr(value, "__dict__", {}).values())


# The server and its client.


@dataclass(frozen=True)
class Case:
    """One way into the service: the request that takes it."""

    path: str
    body: bytes
    headers: tuple[str, ...] = ()

    def written(self) -> bytes:
        """The request as HTTP/1.1 has it."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(self.body)}",
            *self.headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


_PLAIN = json.dumps({"model": MODEL, "x": [ROW]}).encode()
_TENSOR = {"name": "x", "shape": [1, len(ROW)], "datatype": "FP32", "data": ROW}
CASES = {
    "fast path": Case("/log_prob", _PLAIN),
    "asgi": Case("/log_prob", _PLAIN, ("Origin: http://elsewhere",)),
    "v2": Case(
        f"/v2/models/{MODEL}/infer",
        json.dumps({"inputs": [_TENSOR], "parameters": {"operation": "log_prob"}}).encode(),
    ),
}


def _ask(client: socket.socket, request: bytes) -> bytes:
    """Send one request, and read the body of its answer."""
    client.sendall(request)
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += client.recv(65_536)
    head, body = answer[:end], answer[end + 4 :]
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer.decode())
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while len(body) < int(found[1] if found else 0):
        body += client.recv(65_536)
    return body


def _connect(port: int) -> socket.socket:
    """Connect to the server once it listens."""
    ends_at = time.monotonic() + START_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.1)


def _follow_case(case: Case, port: int, root: Path, install: Callable[[Any], None]) -> Trace:
    """Follow one request until it went one way several times.   Gives what was seen each time."""
    with _connect(port) as client:
        for _ in range(WARM_UP):
            answer = _ask(client, case.written())
        marks = (case.body, answer, b"content-length")
        follower = Follower(root, marks)
        install(follower)
        alike: dict[frozenset[str], list[Trace]] = {}
        for number in range(MOST_REQUESTS):
            with follower.following() as trace:
                _ask(client, case.written())
                follower.settle()
            if number < 2:  # these show which instances are there for longer
                continue
            # A busy machine sends a request another way: a batch expected to take long waits.
            traces = alike.setdefault(frozenset(trace.holders), [])
            traces.append(trace)
            if len(traces) == REPETITIONS:
                return _common(traces)
    ways = sorted(map(len, alike.values()))
    raise RuntimeError(f"{case.path}: of {MOST_REQUESTS} requests no {REPETITIONS} alike: {ways}")


def _common(traces: list[Trace]) -> Trace:
    """What was seen in each of several traces."""
    return Trace(
        modules=set.intersection(*(trace.modules for trace in traces)),
        carriers=set.intersection(*(trace.carriers for trace in traces)),
        pairs=set.intersection(*(trace.pairs for trace in traces)),
        holders=set.intersection(*(trace.holders for trace in traces)),
    )


class _Hook:
    """The profile function of all threads, which are started before it is known what it does."""

    def __init__(self) -> None:
        self.follower: Any = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Pass the event on."""
        if self.follower is not None:
            self.follower(frame, event, argument)

    def install(self, follower: Any) -> None:
        """Let a follower see what runs from now on."""
        self.follower = follower


def follow(root: Path) -> dict[str, Trace]:
    """Serve a checkout's model in this thread, and follow a request on each transport."""
    run, settings = _entry(root)
    port = settings.port
    traces: dict[str, Trace] = {}
    errors: list[BaseException] = []
    hook = _Hook()

    def ask_all() -> None:
        sys.setprofile(None)  # the client is no part of the way
        try:
            for name, case in CASES.items():
                traces[name] = _follow_case(case, port, root, hook.install)
        except BaseException as error:
            errors.append(error)
        finally:
            hook.install(None)
            os.kill(os.getpid(), signal.SIGTERM)

    client = threading.Thread(target=ask_all)
    client.start()
    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        run(settings)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    client.join()
    if errors:
        raise errors[0]
    return traces


def _entry(root: Path) -> tuple[Any, Any]:
    """Import a checkout's server.   Gives its `run` and the settings to run it with."""
    for name in ENTRY_POINTS:
        with contextlib.suppress(ModuleNotFoundError):
            run = importlib.import_module(name).run
            break
    else:
        raise SystemExit(f"{root}: expected one of the modules {', '.join(ENTRY_POINTS)}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind = importlib.import_module("service.settings").Settings
    # Through the queue: whether a request need not wait depends on what the machine does beside it.
    queued = {"max_inline_seconds": 0.0} if "max_inline_seconds" in kind.model_fields else {}
    settings = kind(
        model_repository=(root / "models" / "zoo" / MODEL,),
        port=port,
        engine="torch",
        device="cpu",
        watch_models=False,
        log_level="warning",
        **queued,
    )
    return run, settings


def main(root: Path) -> None:
    """Write what was seen as JSON."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the server writes is not part of it
    ways = {
        name: {
            "files": sorted(trace.modules),
            "carriers": sorted(trace.carriers),
            "hand_overs": sorted(" -> ".join(pair) for pair in trace.pairs),
            "re_wrappings": sorted(trace.holders),
        }
        for name, trace in follow(root).items()
    }
    json.dump(ways, output)
    output.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""One vocabulary: the words that were given up for the field's standard terms do not come back.

Three kinds of them. A metaphor (a desk that has companies of visits) has no other meaning here, so
it stands nowhere: not in a file's name, an identifier, a docstring, a comment, a log message or a
manual. An
ordinary English word (an answer, an order) is given up as the name of a class only. And what a
module was called is given up in its folder.
"""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("pushforward", "models", "service", "tools", "tests", "benchmarks", "examples")

# What people read. The changelog tells of what was.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "benchmarks").glob("*.md"))

# Singular -> the standard term. As any part of an identifier, and in prose; plurals too.
METAPHORS = {
    "attend": "serve, receive",
    "burst": "RequestCoalescer, steps per compaction",
    "bury": "reap",
    "company": "CoalescedBatch, batch",
    "crew": "workers",
    "desk": "AppContext",
    "doctor": "StateDictReport",
    "errand": "FastPathRequest",
    "guest": "FakeRequest; a connection beyond the limit",
    "handoff": "BatchQueue",
    "hear": "receive",
    "hosted": "LoadedModel",
    "house": "FakeRepository, project",
    "lane": "RequestHeadCache, queue, active rows",
    "patient": "StateDictReport",
    "scene": "LoopbackServer",
    "seat": "QueueHandle",
    "tally": "CounterSeries, HistogramSeries",
    "team": "Supervisor",
    "ticket": "QueueEntry",
    "visit": "RequestContext",
}
# Names of classes, with or without a leading underscore. The words are English, or a library's.
CLASSES = {
    "Answer": "InferenceResult",
    "Choice": "EngineSelection",
    "ClientWatch": "DisconnectWatcher",
    "Count": "CounterSeries",
    "Draw": "SamplingParams",
    "Ending": "CancelReason",
    "Evidence": "HyperparameterSources",
    "Form": "ResponseFormat",
    "Frame": "TelemetryMiddleware",
    "Guard": "ApiKeyAuth",
    "Job": "nothing: dropped",
    "Kernel": "BatchExecutor",
    "Listing": "ModelIndexEntry",
    "Mapped": "EngineOutput",
    "Order": "ModelInput, RoutedRequest",
    "Outcome": "BatchResult",
    "Pace": "ThroughputEstimator",
    "Piece": "EntrySlice",
    "Place": "QueueHandle",
    "Policy": "QueuePolicy",
    "Process": "Worker",
    "Register": "RequestRecorder",
    "Slot": "ReplySink",
    "Solves": "SolverStats",
    "Source": "ModelLocation",
    "Spread": "HistogramSeries",
    "Task": "V2Call",
    "Tuning": "ModelOverrides",
    "Written": "RawResponse",
}
# Functions, in the folder where they were: elsewhere the word is a library's or has a meaning.
FUNCTIONS = {
    ("models/importers", "examine"): "extract_state_dict",
    ("models/importers", "settle"): "resolve",
    ("service/launch", "leave"): "hard_exit",
    ("service/launch", "meet"): "ready_barrier",
}
# Modules and packages: where they were -> where they are.
MODULES = {
    "models/certificate.py": "models/onnx/certificate.py",
    "models/checkpoint.py": "models/checkpoints/folder.py",
    "models/divergence.py": "models/ode/divergence.py",
    "models/dynamics": "models/ode/fields",
    "models/evaluate.py": "models/training/evaluate.py",
    "models/fold/trace.py": "models/fold/jacobian_trace.py",
    "models/golden.py": "models/checkpoints/golden.py",
    "models/importers/findings.py": "models/importers/report.py",
    "models/importers/settings.py": "models/importers/hyperparameters.py",
    "models/importers/sources.py": "models/importers/registry.py",
    "models/importers/tables.py": "models/importers/layouts/chain_layers.py",
    "models/loop.py": "models/ode/while_loop.py",
    "models/onnx/gate.py": "models/onnx/validate.py",
    "models/onnx/loop.py": "models/onnx/while_loop.py",
    "models/onnx/probe.py": "models/onnx/drift.py",
    "models/onnx/stored.py": "models/onnx/load.py",
    "models/onnx/trial.py": "models/onnx/comparison.py",
    "models/path_costs.py": "models/ode/regularization.py",
    "models/solver.py": "models/ode/solver.py",
    "models/training/adapt.py": "models/training/defaults.py",
    "models/training/average.py": "models/training/ema.py",
    "models/training/coarse.py": "models/training/pixel_noise.py",
    "service/batcher/kernel.py": "service/batcher/executor.py",
    "service/batcher/pace.py": "service/batcher/throughput.py",
    "service/cli.py": "pushforward/cli/main.py",
    "service/commands": "pushforward/cli",
    "service/engines/select.py": "service/engines/autotune.py",
    "service/engines/threads.py": "service/engines/cpu.py",
    "service/exits.py": "service/launch/exits.py",
    "service/express": "service/transport/fast_path",
    "service/guard.py": "service/auth.py",
    "service/logs.py": "service/telemetry/access_log.py",
    "service/metrics": "service/telemetry",
    "service/model.py": "service/contracts.py",
    "service/process.py": "service/launch/worker.py",
    "service/repository/serving.py": "service/repository/loading.py",
    "service/repository/tuning.py": "service/repository/overrides.py",
    "service/routes": "service/operations, service/transport",
    "service/server.py": "service/launch/main.py",
    "service/tracing.py": "service/telemetry/tracing.py",
    "tests/test_house.py": "tests/test_project.py",
}
# (file, word) -> why it stands there.
ALLOWED = {
    ("tests/test_words.py", "desk"): "says what a metaphor is",
    ("tests/test_words.py", "company"): "says what a metaphor is",
    ("tests/test_words.py", "visit"): "says what a metaphor is",
    ("models/importers/source.py", "Count"): "the type of a positive whole number",
    ("models/training/options.py", "Count"): "the type of a positive whole number",
    ("models/families/layers.py", "Order"): "of the features of an autoregressive map",
    ("models/scoring/statistics.py", "Evidence"): "what a statistic reads of rows",
    ("models/importers/source.py", "Source"): "a code base whose files are read, no folder",
}

_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_LOG_CALLS = ("critical", "debug", "error", "exception", "info", "log", "warning")


@functools.cache
def _parts(text: str) -> frozenset[str]:
    """The words of a text or an identifier, in the singular."""
    found = _PART.findall(text.replace("hand-off", "handoff"))
    return frozenset(_singular(part.lower()) for part in found)


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _identifiers(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every name that the module gives to something, or uses."""
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.keyword):
            yield node.lineno, node.arg or ""
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias):
            yield node.lineno, f"{node.name} {node.asname or ''}"
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def _class_names(node: ast.AST) -> Iterator[str]:
    """What a class or an alias of one is called, without underscores in front."""
    if isinstance(node, ast.ClassDef):
        yield node.name.lstrip("_")
    elif isinstance(node, ast.Assign):
        yield from (name.id.lstrip("_") for name in node.targets if isinstance(name, ast.Name))


def _docstrings(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in nodes:
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            text = node.body[0]
            assert isinstance(text, ast.Expr)
            assert isinstance(text.value, ast.Constant)
            for offset, line in enumerate(str(text.value.value).splitlines()):
                yield text.lineno + offset, line


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _log_messages(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Texts in calls of loggers, which are called some kind of log here."""
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _LOG_CALLS
            and "log" in ast.unparse(node.func.value).lower()
        ):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.lineno, inner.value


Found = tuple[int, str, str, str]


def _in_module(path: str, source: str) -> Iterator[Found]:
    """Line, word, what holds it, and the term for it."""
    nodes = list(ast.walk(ast.parse(source, path)))
    for word in sorted(_parts(path) & METAPHORS.keys()):
        yield 0, word, "the file's name", METAPHORS[word]
    kinds = {
        "an identifier": _identifiers(nodes),
        "a docstring": _docstrings(nodes),
        "a comment": _comments(source),
        "a log message": _log_messages(nodes),
    }
    for kind, texts in kinds.items():
        for line, text in texts:
            for word in sorted(_parts(text) & METAPHORS.keys()):
                yield line, word, kind, METAPHORS[word]
    for node in nodes:
        for name in _class_names(node):
            if name in CLASSES:
                yield node.lineno, name, "a class", CLASSES[name]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for (folder, name), term in FUNCTIONS.items():
                if node.name == name and path.startswith(f"{folder}/"):
                    yield node.lineno, name, "a function", term


def _in_page(text: str) -> Iterator[Found]:
    for number, line in enumerate(text.splitlines(), 1):
        for word in sorted(_parts(line) & METAPHORS.keys()):
            yield number, word, "a manual", METAPHORS[word]


def _find(path: str, text: str) -> Iterator[Found]:
    return _in_module(path, text) if path.endswith(".py") else _in_page(text)


def find_words(path: str, text: str) -> list[str]:
    """The lines of one module or page that hold a word that was given up."""
    return [
        f"{path}:{line}: {word} in {kind}; the term is: {term}"
        for line, word, kind, term in sorted(set(_find(path, text)))
        if (path, word) not in ALLOWED
    ]


def _all_words(paths: Iterable[Path]) -> list[str]:
    return [
        line
        for path in paths
        for line in find_words(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_word_that_was_given_up(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = _all_words(paths)
    assert not found, "\n".join(["words that were given up:", *found])


def test_no_metaphor_in_the_manuals() -> None:
    found = _all_words(PAGES)
    assert not found, "\n".join(["words that were given up:", *found])


def test_no_module_that_was_moved() -> None:
    there = [path for path in MODULES if (ROOT / path).exists() and not _is_kept(ROOT / path)]
    assert not there, "\n".join(f"{path}: it is {MODULES[path]}" for path in there)


def _is_kept(path: Path) -> bool:
    """Whether a module only stands where it was in 0.1.0, and warns."""
    return path.is_file() and "DeprecationWarning" in path.read_text("utf-8")


@pytest.mark.parametrize(("path", "word"), ALLOWED)
def test_every_exemption_is_needed(path: str, word: str) -> None:
    assert word in {found[1] for found in _find(path, (ROOT / path).read_text("utf-8"))}


@pytest.mark.parametrize(
    ("path", "source", "word"),
    [
        ("service/app.py", "desk = 1", "desk in an identifier"),
        ("service/app.py", "class AppDesk: ...", "desk in an identifier"),
        ("service/app.py", "def f(company_rows): ...", "company in an identifier"),
        ("service/app.py", "f(visits=1)", "visit in an identifier"),
        ("service/app.py", "a.lanes", "lane in an identifier"),
        ("service/app.py", "from service import tallies", "tally in an identifier"),
        ("service/tallies.py", "", "tally in the file's name"),
        ("service/app.py", '"""A desk."""', "desk in a docstring"),
        ("service/app.py", "x = 1  # two companies", "company in a comment"),
        ("service/app.py", "# the hand-off", "handoff in a comment"),
        ("service/app.py", '_log.info("the team ended")', "team in a log message"),
        ("service/app.py", 'logger.error(f"{x}: no seats")', "seat in a log message"),
        ("service/app.py", "class _Answer: ...", "Answer in a class"),
        ("service/app.py", "Outcome = int | str", "Outcome in a class"),
        ("service/launch/exits.py", "def leave(): ...", "leave in a function"),
    ],
)
def test_the_rule_finds(path: str, source: str, word: str) -> None:
    assert [line for line in find_words(path, source) if word in line]


@pytest.mark.parametrize(
    "source",
    [
        'answer = "at the desk"',
        "class InferenceResult: ...",
        '"""The answer of an order, patiently."""',
        "def leave(): ...",
        "multiprocessing.Process()",
    ],
)
def test_the_rule_leaves_alone(source: str) -> None:
    assert find_words("service/batcher/entry.py", source) == []

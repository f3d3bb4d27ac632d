"""A reader of one page: a clone, a shell, terminals with servers, and the blocks in order."""

import os
import re
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.process import free_port, wait_until_ready
from tests.docs import environment
from tests.docs.answers import compare
from tests.docs.blocks import ROOT, Block, Command, commands_of
from tests.docs.data import check_data
from tests.docs.pages import EXCUSED, FILES, REPLACED, VARIABLES, find_needs
from tests.docs.warm import PYTHON

_ADDRESS = re.compile(r"\b(127\.0\.0\.1|localhost):(\d{4,5})\b")
_PORT = re.compile(r"(--(?:grpc-)?port[ =]|\bPORT=)(\d+)")
_HTTP_PORT = re.compile(r"(?:--port[ =]|\bPORT=)(\d+)")
_SERVER = re.compile(r"^(pushforward serve\b(?!.*--print-settings)|make serve\b)", re.S)
_DEFAULT_PORT = "8000"
_SECONDS = 180


class Reader:
    """Runs the blocks of a page, each once and after those before it.

    Args:
        page: its path below the clone.
        folder: for the clone, the environment and what else it makes; empty.
        warm: what runs its commands.
        ports: of this machine, for those on the page; shared by pages that share a server.
    """

    def __init__(
        self, page: str, folder: Path, warm: "WarmProcesses", ports: dict[str, str] | None = None
    ) -> None:
        self.page = page
        self.folder = folder
        self.clone = folder / "clone"
        self.ports = {} if ports is None else ports
        self._outcomes: dict[Block, Exception | None] = {}
        self._servers: dict[str, subprocess.Popen[str]] = {}
        self._warm = warm
        self._state = folder / "state"
        _make_clone(self.clone)
        self._prepare()

    def run(self, block: Block, before: list[Block]) -> None:
        """Run a block, once those before it have been run."""
        for one in (*before, block):
            if one not in self._outcomes:
                self._outcomes[one] = self._try(one)
        outcome = self._outcomes[block]
        if outcome is not None:
            raise outcome

    def close(self) -> None:
        """Kill the servers: how one ends is tested elsewhere."""
        for process in self._servers.values():
            _kill(process)

    def _prepare(self) -> None:
        """What the page says that it needs, and the files that its reader has."""
        shims = self.folder / "bin"
        shims.mkdir()
        # The machine's, which has no package of ours.
        environment.write_python3(
            shims / "python3", shlex.quote(str(environment.PYTHON_OF_MACHINE))
        )
        home = self.folder / "home"
        home.mkdir()
        variables = {
            "PATH": f"{shims}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "MPLCONFIGDIR": str(Path.home() / ".cache/matplotlib"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PUSHFORWARD_PORT": self._port(_DEFAULT_PORT),
            "PUSHFORWARD_BASE_URL": f"http://127.0.0.1:{self._port(_DEFAULT_PORT)}",
            "PORT": self._port(_DEFAULT_PORT),
            environment.CACHE_VARIABLE: os.environ[environment.CACHE_VARIABLE],
        }
        kept = ("NPY_DISABLE_CPU_FEATURES", "TMPDIR")
        variables |= {name: os.environ[name] for name in kept if name in os.environ}
        variables |= VARIABLES.get(self.page, ({}, ""))[0]
        self._state.write_text(
            "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        )
        needs = find_needs(self.page)
        if needs is not None:
            environment.make(self.clone / ".venv", needs)
            self._shell(". .venv/bin/activate")

    def _try(self, block: Block) -> Exception | None:
        try:
            if block.page in FILES:
                FILES[block.page](block, self.clone)
            if block.language in ("sh", "console"):
                for command in commands_of(block):
                    self._run_command(command)
            elif block.language == "python":
                self._run_python(block)
            else:
                self._keep(block)
        except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as error:
            error.add_note(str(block))
            return error
        return None

    def _keep(self, block: Block) -> None:
        """Check data, and write a file whose name is in its first line, for what follows."""
        text = self._adapt(block.text)
        file = None
        if found := re.match(r"# ([\w./-]+)\n", text):
            file = self.clone / found[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        check_data(block, text, file)

    def _run_command(self, command: Command) -> None:
        if find_excuse(self.page, command.text):
            return
        text = self._adapt(command.text)
        if _SERVER.match(text):
            self._start(text)
            return
        if text.startswith("curl") and not command.shown:
            # What curl fetched into a file must be no error.
            text += " -w '%{stderr}%{http_code}'"
        done = self._shell(text)
        told = f"$ {text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, told
        if text.startswith("curl") and not command.shown:
            assert re.search(r"2\d\d$", done.stderr), told
        if command.shown:
            compare(done.stdout, command.shown)

    def _run_python(self, block: Block) -> None:
        text = self._adapt(block.text)
        done = self._shell(PYTHON, given=text)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    def _adapt(self, text: str) -> str:
        """The text with ports of this machine, and what is replaced by something shorter."""
        for page, old, new, _ in REPLACED:
            if page == self.page:
                text = text.replace(old, new)
        text = _ADDRESS.sub(lambda found: f"{found[1]}:{self._port(found[2])}", text)
        return _PORT.sub(lambda found: f"{found[1]}{self._port(found[2])}", text)

    def _port(self, on_page: str) -> str:
        if on_page not in self.ports:
            self.ports[on_page] = str(free_port())
        return self.ports[on_page]

    def _shell(self, text: str, *, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the shell of the page, which keeps its variables."""
        self._warm.start(self.clone)
        keep = f"code=$?; export -p > {shlex.quote(str(self._state))}; exit $code"
        # No `-u`: what a page exports may build on what the reader has not set.
        script = f". {shlex.quote(str(self._state))}\n{text}\n{keep}"
        return subprocess.run(
            ["bash", "-c", script], input=given, capture_output=True, text=True, check=False,
            cwd=self.clone, env={}, timeout=_SECONDS,
        )  # fmt: skip

    def _start(self, text: str) -> None:
        """Start a server in a terminal of its own; the one on its port has been ended by Ctrl-C."""
        self._warm.start(self.clone)
        found = _HTTP_PORT.search(text)
        port = found[1] if found else self._port(_DEFAULT_PORT)
        if port in self._servers:
            _end(self._servers.pop(port))
        log = self.folder / f"server-{port}.log"
        script = f". {shlex.quote(str(self._state))}\nexec {text}"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", script], stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                text=True, cwd=self.clone, env={}, start_new_session=True,
            )  # fmt: skip
        self._servers[port] = process
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)


class WarmProcesses:
    """The processes that have imported before, one for each environment that has the command."""

    def __init__(self) -> None:
        self._started: dict[Path, subprocess.Popen[str]] = {}

    def start(self, clone: Path) -> None:
        """Start those of the environments in a clone that are not running."""
        for config in clone.glob("*/pyvenv.cfg"):
            folder = config.resolve().parent
            if folder not in self._started and any(folder.glob("lib/*/site-packages/typer")):
                self._started[folder] = _start_warm(folder)

    def close(self) -> None:
        """Kill them, and what they have forked."""
        for process in self._started.values():
            _kill(process)


def _start_warm(folder: Path) -> subprocess.Popen[str]:
    path = folder / "warm.socket"
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)
    words = [str(folder / "bin" / "python"), "-P", str(environment.WARM), str(path)]
    process = subprocess.Popen(words, env=variables, cwd="/", text=True, start_new_session=True)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """End a process that began a session, and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
            return


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process that began a session, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _make_clone(folder: Path) -> None:
    """What a clone holds, as links; what a page writes lies beside them."""
    for inner in (folder, folder / "models"):
        inner.mkdir()
        for path in (ROOT / inner.relative_to(folder)).iterdir():
            is_made = path.name in ("models", "__pycache__")
            if not path.name.startswith(".") and not is_made:
                (inner / path.name).symlink_to(path)


def find_excuse(page: str, command: str) -> str | None:
    """Why a command of a page is not run, if it is not."""
    for (where, start), reason in EXCUSED.items():
        if where == page and command.startswith(start):
            return reason
    return None


def is_excused(block: Block) -> bool:
    """Whether nothing of a block is run."""
    if block.language in ("sh", "console"):
        return all(find_excuse(block.page, command.text) for command in commands_of(block))
    return find_excuse(block.page, block.text) is not None

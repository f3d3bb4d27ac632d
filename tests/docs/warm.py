"""Commands in a process that has imported before what they import: torch, where it is, and ours.

An import of torch takes two seconds, ours one.

The text of this file is the command `pushforward` of an environment, one that runs what Python it
reads, and the process that they ask to fork. Where none is running a command starts as it always
does. Standard library alone.

    python warm.py SOCKET       answers on SOCKET until it is killed
"""

import importlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress

# Under this name it runs what Python it reads.
PYTHON = "read-python"
# What most commands import, each where the environment has what it takes.
IMPORTED = (
    "torch",
    "pushforward.cli.app",
    "models.importers.run",
    "models.training",
    "models.onnx.export",
    "service.app",
    "service.launch.main",
)
# What training imports besides, in environments for it; torch itself with its first optimiser.
IMPORTED_TO_TRAIN = ("matplotlib.backends.backend_agg", "sklearn.datasets", "torch._dynamo")
_MOST = 1 << 20


def ask(path: str, arguments: list[str]) -> int:
    """Have the process behind a socket run a command with this one's files.   -> its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = {"arguments": arguments, "folder": os.getcwd(), "variables": dict(os.environ)}
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        answers = connection.makefile("r")
        pid = int(answers.readline())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        return int(answers.readline() or 1)


def serve(path: str) -> None:
    """Import what is there, then fork for whoever asks."""
    for name in IMPORTED:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    with suppress(ModuleNotFoundError):
        for name in IMPORTED_TO_TRAIN:
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path + ".new")
        listener.listen()
        os.rename(path + ".new", path)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, files, _, _ = socket.recv_fds(connection, _MOST, 3)
    pid = os.fork()
    if pid:
        connection.sendall(b"%d\n" % pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(b"%d\n" % (status if status >= 0 else 128 - status))
        os._exit(0)
    connection.close()
    _run(json.loads(data), files)


def _run(request: dict, files: list[int]) -> None:
    """Be the command: `pushforward WORDS`, or Python that reads what it runs."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    importlib.invalidate_caches()
    sys.argv = request["arguments"]
    if sys.argv == ["-"]:
        sys.path.insert(0, "")
        code = compile(sys.stdin.read(), "<page>", "exec")
    else:
        with open(os.path.join(sys.prefix, "entry.py")) as entry:
            code = compile(entry.read(), "entry.py", "exec")
    exec(code, {"__name__": "__main__"})


def main() -> None:
    """The command of an environment, or the process that it asks."""
    if os.path.basename(sys.argv[0]) == "warm.py":
        serve(sys.argv[1])
        return
    folder = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    is_python = os.path.basename(sys.argv[0]) == PYTHON
    path = os.path.join(folder, "warm.socket")
    if os.path.exists(path):
        sys.exit(ask(path, ["-"] if is_python else sys.argv))
    words = ["-"] if is_python else [os.path.join(folder, "entry.py"), *sys.argv[1:]]
    python = os.path.join(folder, "bin", "python")
    os.execv(python, [python, *words])


if __name__ == "__main__":
    main()

"""What a run shows while it lasts: a bar on a terminal, nothing in a pipe."""

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

MOONS = Path(__file__).resolve().parents[3] / "models" / "zoo" / "moons"
CODE = (
    "import pushforward.batch.job; pushforward.batch.job.MOST_ROWS = 4096;"
    "from pushforward.cli.main import main; main()"
)


def read_all(terminal: int, shown: bytearray) -> None:
    while True:
        try:
            chunk = os.read(terminal, 2**16)
        except OSError:  # how Linux says that the other end is closed
            return
        if not chunk:
            return
        shown += chunk


def test_a_bar_is_shown_on_a_terminal_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((200_000, 2)))
    words = [sys.executable, "-c", CODE, "log-prob", MOONS, tmp_path / "in.npy", "--overwrite"]
    command = [*map(str, words), "-o", str(tmp_path / "out.npy")]
    ours, theirs = pty.openpty()
    shown = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, shown))
    reader.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, check=True, stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    reader.join()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"log_prob .*\d+/200000 .*[\d,]+ rows/s \d:\d\d:\d\d", text), text
    assert text.rstrip().endswith("200,000 rows")
    piped = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    assert piped.stderr == f"{tmp_path / 'out.npy'}: 200,000 rows\n"

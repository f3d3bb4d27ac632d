"""Where the work of a run goes: tried before it begins, kept elsewhere if writing fails later."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save as to_bytes

from models.checkpoints.files import content_of, try_folder, write_file
from models.checkpoints.folder import CONFIG_FILE
from models.checkpoints.tensor_file import contiguous
from models.flow import Flow
from models.training.options import TrainingError, TrainingKept
from models.training.state import State, state_path, write_state

# Of a name, so that what is put behind it has room.
_MOST_LETTERS = 100


def check_out(out: Path, *, resume: bool, num_bytes: int = 0) -> None:
    """See, before anything is trained, that a model can be written to `out`: make, write, rename.

    Args:
        out: the model folder.
        resume: whether a saved state is wanted there.
        num_bytes: about how large the model and the state of its run are.

    Raises:
        TrainingError: it is taken, it cannot be written, or a saved state would be lost.
    """
    try:
        state = state_path(out)
        if out.exists() and not out.is_dir():
            raise TrainingError(f"{out}: expected a folder to write, got a file; choose another")
        if (out / CONFIG_FILE).exists():
            raise TrainingError(f"{out}: holds a model; delete it or choose another folder")
        strangers = [path.name for path in content_of(out) if path != state]
        if strangers:
            raise TrainingError(
                f"{out}: expected an empty folder or none, got one with {min(strangers)}; choose "
                "another"
            )
        if state.exists() and not resume:
            raise TrainingError(
                f"{out}: an interrupted run left its state in {state}; go on with --resume, or "
                "delete that file to start anew"
            )
        if not state.exists():
            write_file(state, b"")
            state.unlink()
        if not out.exists() or not content_of(out):
            try_folder(out, num_bytes)
    except FileNotFoundError:
        raise TrainingError(
            f"{out}: cannot be written: there is no folder {out.absolute().parent}; make it first"
        ) from None
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written: {error.strerror or error}") from None


def keep_state(out: Path, state: State) -> tuple[Path, bool]:
    """Save the state of an interrupted run.

    Returns:
        Where it lies, and whether --resume finds it there.

    Raises:
        OSError: neither beside `out` nor in the current or the temporary folder.
    """
    wanted = state_path(out)
    try:
        write_state(wanted, state)
        return wanted, True
    except OSError:
        return _elsewhere(wanted.name, lambda path: write_state(path, state)), False


def keep_model(out: Path, error: OSError, write: Callable[[Path], None]) -> TrainingKept:
    """Write a trained model to another folder, since its own cannot be written any more.

    Args:
        out: where it was to go.
        error: why it is not there.
        write: writes the model folder it is given.

    Returns:
        What to raise; it names the folder.
    """
    path = _elsewhere(out.name[:_MOST_LETTERS], write)
    return TrainingKept(f"{out}: cannot be written: {error.strerror or error}", path)


def keep_weights(flow: Flow, out: Path, reason: str) -> TrainingKept:
    """Write the weights of a model that does not prove itself, with its configuration.

    Returns:
        What to raise; it names the file, whose metadata hold `family` and `config`.
    """
    metadata = {"format": "pt", "family": flow.family, "config": json.dumps(flow.config)}
    content = to_bytes(contiguous(flow.state_dict()), metadata)
    name = f"{out.name[:_MOST_LETTERS]}.weights.safetensors"
    path = _elsewhere(name, lambda path: write_file(path, content), beside=out)
    return TrainingKept(f"{reason}; what was trained is kept as weights", path)


def _elsewhere(name: str, write: Callable[[Path], None], beside: Path | None = None) -> Path:
    """Write to the current folder, else to the temporary one, under a name that is free.

    Args:
        name: of the file or folder.
        write: writes to the path it is given.
        beside: a folder next to which is tried first.

    Raises:
        OSError: nowhere.
    """
    places = [Path.cwd(), Path(tempfile.gettempdir())]
    if beside is not None:
        places.insert(0, beside.absolute().parent)
    for place in places:
        path = next(
            free
            for number in range(1, 1000)
            if not (free := place / (name if number == 1 else f"{name}.{number}")).exists()
        )
        try:
            write(path)
            return path
        except OSError as error:
            last = error
    raise last

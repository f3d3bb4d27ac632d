"""Tensors in safetensors files: read with limits, and made fit to be written."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as from_bytes

from models.checkpoints.errors import CheckpointError
from models.checkpoints.files import check_regular

if TYPE_CHECKING:
    from torch import Tensor


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Read every tensor of a file.

    Raises:
        CheckpointError: if it is no safetensors file, or larger than the memory of the machine.
    """
    with _opened(path) as file:
        # Clones: tensors that map the file change with it, and where they lie in it decides
        # their alignment, which moves the last bit of a convolution.
        return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """Read every tensor of a file as arrays of numpy, without torch.

    Returns:
        The arrays, and the SHA-256 of the file that they are of, in hex.

    Raises:
        CheckpointError: as `read_tensors`, or one has a type that numpy has not.
    """
    with _readable(path):
        content = path.read_bytes()
        return from_bytes(content), hashlib.sha256(content).hexdigest()


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes in the header of a file; its tensors are not read.

    Raises:
        CheckpointError: as `read_tensors`.
    """
    with _opened(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def read_sizes(path: Path) -> dict[str, int]:
    """How many bytes each tensor of a file takes, without torch.

    Raises:
        CheckpointError: as `read_arrays`.
    """
    return {key: array.nbytes for key, array in read_arrays(path)[0].items()}


def contiguous(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Copies that can be written: safetensors refuses views and shared memory."""
    return {key: tensor.clone().contiguous() for key, tensor in tensors.items()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with _readable(path):
        path.open("rb").close()  # safe_open calls a file that it may not read "not found"
        with safe_open(path, framework="pt") as file:
            yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        check_regular(path, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        yield
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None

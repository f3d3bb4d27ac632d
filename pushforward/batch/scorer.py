"""`Scorer`: a model as a function of batches of rows, for what spreads them over machines.

    scorer = Scorer("models/fraud", "score", alpha=0.001)
    scorer({"amount": amounts, "hour": hours})["p_value"]

Ray Data, Spark and Dask send it to their processes: what is sent is the path and the arguments; the
model is loaded once in each process.
"""

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pushforward.siblings import SIBLINGS, import_sibling

if TYPE_CHECKING:
    from pushforward.batch.session import Session

_lock = threading.Lock()
# By path, the state of its files, and settings: those of this process.
_sessions: dict[tuple[Any, ...], "Session"] = {}


def _forget() -> None:
    """After a fork: the threads of these sessions run in the parent alone."""
    global _lock
    _lock = threading.Lock()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Scorer:
    """A model and an operation, called with batches of rows.

    A batch is a dict of numpy columns, a table or a record batch of Arrow, or a frame of pandas;
    what comes out is of the same kind. Its columns are one a feature, by the model's
    `feature_names`, or one named as the field of the operation (x, z), of shape (B, ...) or lists.

    What comes out has the names that the answer in JSON has, and `status`: "" of a row that has its
    numbers, else why it has none. A bad row never raises: its numbers are NaN, or null in Arrow and
    pandas. There an output of several numbers a row has a column for each, as in an output file. A
    row has the same bits in any batch, in the server and here.

    `sample` takes one column of whole numbers, the rows of the seed's endless draw that are wanted;
    it needs a seed.

    Args:
        model: path of its folder.
        operation: log_prob, score, encode, decode or sample.
        columns: the columns of a batch that hold the features, in the model's order; left out,
            those of the model's names.
        context: the columns that a conditional model is conditioned on: the label, or numbers.
        keep: columns of a batch that are carried along.
        instances: batches computed at a time in a process; auto: one a core. Name 1 where there is
            a process for each core.
        num_threads: of one engine call; left out: 1.
        fields: of the operation, as in a request: alpha, threshold, explain, seed, temperature.
    """

    def __init__(
        self,
        model: str | Path,
        operation: str,
        *,
        columns: Sequence[str] | None = None,
        context: Sequence[str] | None = None,
        keep: Sequence[str] = (),
        instances: Literal["auto"] | int = "auto",
        num_threads: int | None = None,
        **fields: Any,
    ) -> None:
        self.model = Path(model)
        self.operation = operation
        self.fields = fields
        self._named: dict[str, Any] = {
            "columns": None if columns is None else tuple(columns),
            "context": None if context is None else tuple(context),
            "keep": tuple(keep),
        }
        self._settings = (instances, num_threads)
        self._session: Session | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def __call__(self, batch: Any) -> Any:
        """Compute the rows of a batch.

        Raises:
            ValueError: the model cannot be loaded, the fields are not what the operation takes, or
                the columns are not the model's.
            RuntimeError: the engine failed.
        """
        session = self._open()
        kind = _kind_of(batch)
        if kind is None:
            from pushforward.batch.arrays import answer_batch

            return answer_batch(session, self.operation, self.fields, batch, **self._named)
        from pushforward.batch.tables import ANSWERS

        return ANSWERS[kind](session, self.operation, self.fields, batch, **self._named)

    def map_in_arrow(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Compute record batches one after the other, for `mapInArrow` of Spark."""
        return map(self, batches)

    def map_in_pandas(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Compute frames one after the other, for `mapInPandas` of Spark."""
        return map(self, frames)

    def output_schema(self, schema: Any) -> Any:
        """The schema of what comes out of tables of a schema of Arrow.

        Raises:
            ValueError: as a call.
        """
        return self(schema.empty_table()).schema

    def _open(self) -> "Session":
        if self._session is None or self._process != os.getpid():
            self._session, self._process = _find(self.model, *self._settings), os.getpid()
            if self.operation == "sample" and self.fields.get("seed") is None:
                raise ValueError("seed: name one, so that all processes draw from the same table")
            self._session.try_fields(self.operation, self.fields)
        return self._session


def _kind_of(batch: Any) -> str | None:
    """Which class of Arrow or pandas a batch is of; neither is imported to tell."""
    for module, names in (("pyarrow", ("Table", "RecordBatch")), ("pandas", ("DataFrame",))):
        package = sys.modules.get(module)
        for name in names:
            if package is not None and isinstance(batch, getattr(package, name)):
                return name
    return None


def _find(model: Path, instances: Literal["auto"] | int, num_threads: int | None) -> "Session":
    """Find the session of a model in this process; the first who asks has it loaded."""
    for name in SIBLINGS:
        import_sibling(name)
    from pushforward.batch.locate import stamp_of
    from pushforward.batch.session import Session

    key = (os.path.realpath(model), stamp_of(model), instances, num_threads)
    with _lock:
        if key not in _sessions:
            _sessions[key] = Session(model, instances=instances, num_threads=num_threads)
        return _sessions[key]

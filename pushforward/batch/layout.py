"""Which columns of a table hold the rows of a model, what they are conditioned on, what is kept."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from models.datasets.schema import check_columns
from pushforward.batch.session import Session


class Wanted(NamedTuple):
    """What an operation of a model needs of a table.

    tensor: the field that the rows are, x or z. shape: of one row.
    names: of the columns of a row, where they have names.
    columns: those that the user names, in the model's order; None leaves it to their names.
    context: those that rows are conditioned on.
    keep: those that are carried along.
    has_labels: whether what rows are conditioned on is a label.
    """

    tensor: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    columns: tuple[str, ...] | None = None
    context: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    has_labels: bool = False

    @classmethod
    def of(
        cls,
        session: Session,
        operation: str,
        *,
        columns: Sequence[str] | None = None,
        context: Sequence[str] | None = None,
        keep: Sequence[str] = (),
    ) -> "Wanted":
        """What an operation of the model of a session needs.

        Raises:
            ValueError: a conditional model without context, or a model without one with it.
        """
        chosen, card = session.operation(operation), session.card
        given = () if context is None else tuple(context)
        width = 0
        if card.context_shape is not None:
            width = 1 if card.num_classes is not None else math.prod(card.context_shape)
        if len(given) != width:
            kind = "labels" if card.num_classes is not None else "numbers"
            expected = f"{width} column(s) of {kind}" if width else "none, it is unconditional"
            raise ValueError(
                f"context: model {card.name} takes {expected}, got {', '.join(given) or 'none'}"
            )
        tensor = chosen.tensor_name or ""
        return cls(
            tensor,
            chosen.row_shape(card),
            card.feature_names if tensor == "x" else None,
            None if columns is None else tuple(columns),
            given,
            tuple(keep),
            card.num_classes is not None,
        )

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return math.prod(self.shape)


class Layout(NamedTuple):
    """Columns of a table.

    features: in the model's order; one of lists where `is_tensor`.
    """

    features: tuple[str, ...]
    context: tuple[str, ...]
    keep: tuple[str, ...]
    is_tensor: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*self.features, *self.context, *self.keep)))


def find_layout(
    found: Sequence[str], wanted: Wanted, source: str, lists: Collection[str] | None = None
) -> Layout:
    """Find the columns that an operation needs among those of a table.

    Args:
        found: the names of its columns, in their order.
        wanted: what is needed.
        source: of the table, for messages.
        lists: columns that hold a list a row; None where any may.

    Raises:
        ValueError: they are not there, or stand there twice.
    """
    features = _features(found, wanted, source, lists)
    is_tensor = len(features) == 1 and (
        features[0] in lists if lists is not None else features[0] == wanted.tensor
    )
    for kind, names in (("context", wanted.context), ("keep", wanted.keep)):
        absent = [name for name in names if name not in found]
        if absent:
            raise ValueError(
                f"{source}: {kind}: there is no column {absent[0]!r}, it has {_shown(found)}"
            )
    layout = Layout(features, wanted.context, wanted.keep, is_tensor)
    twice = [name for name in layout.names if list(found).count(name) > 1]
    if twice:
        raise ValueError(f"{source}: two columns are called {twice[0]!r}; rename one")
    return layout


def _features(
    found: Sequence[str], wanted: Wanted, source: str, lists: Collection[str] | None
) -> tuple[str, ...]:
    tensor, width = wanted.tensor, wanted.width
    holds_tensor = tensor in found and (lists is None or tensor in lists)
    numbered = tuple(f"{tensor}_{index}" for index in range(width))
    if wanted.columns is not None:
        return _chosen(found, wanted, wanted.columns, source)
    if wanted.names is not None:
        if holds_tensor and tensor not in wanted.names:
            return (tensor,)
        check_columns(source, found, wanted.names)
        return wanted.names
    if holds_tensor:
        return (tensor,)
    if set(numbered) <= {*found}:
        return numbered
    others = tuple(name for name in found if name not in (*wanted.context, *wanted.keep))
    if len(others) == width:
        return others
    raise ValueError(
        f"{source}: expected {width} columns of {tensor}, or {tensor} as one column of lists, got "
        f"{len(others)}: {_shown(others)}; name them by columns"
    )


def _chosen(
    found: Sequence[str], wanted: Wanted, columns: tuple[str, ...], source: str
) -> tuple[str, ...]:
    absent = [name for name in columns if name not in found]
    if absent:
        raise ValueError(
            f"{source}: columns: there is no column {absent[0]!r}, it has {_shown(found)}"
        )
    if len({*columns}) != len(columns):
        raise ValueError(f"columns: expected each name once, got {', '.join(columns)}")
    if wanted.names is not None and {*columns} == {*wanted.names}:
        return wanted.names  # by name: whoever lists them in another order means the same columns
    if len(columns) not in (1, wanted.width):
        raise ValueError(
            f"columns: expected {wanted.width}, in the order of the model"
            f"{' (' + _shown(wanted.names) + ')' if wanted.names else ''}, got {len(columns)}"
        )
    return columns


def _shown(names: Sequence[str]) -> str:
    more = " ..." if len(names) > 8 else ""
    return (", ".join(map(repr, names[:8])) or "none") + more

"""An operation on files of rows, from the first look at them to the file that is whole.

    inputs ──slabs──> rows ──Session──> parts beside OUT, and what is to be OUT ──when whole──> OUT

One slab is computed while the next is read and the one before is written.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from models.noise import draw_seed
from pushforward.batch.calls import CallResult, PendingCall, RowCall
from pushforward.batch.columns import check_kept, rows_of_table
from pushforward.batch.discoveries import Discoveries
from pushforward.batch.inputs import InputName, find_inputs
from pushforward.batch.layout import Layout, Wanted
from pushforward.batch.partial import PartialOutput
from pushforward.batch.plan import BadRow, FilePlan, FileSummary
from pushforward.batch.provenance import (
    command_of,
    key_of,
    make_facts,
    provenance,
    read_key,
)
from pushforward.batch.readers import kept_fields, layout_of, open_input
from pushforward.batch.rows import Codes, InputRows
from pushforward.batch.session import Session
from pushforward.batch.slabs import InputFile, Slab
from pushforward.batch.writers import STATUS, OutputColumns, table_writer

MOST_ROWS = 65_536
# Of numbers: slabs of pictures have fewer rows.
_MOST_VALUES = 2**22

# Told how many rows are done, and how many there are; None where that is not known.
ShowProgress = Callable[[int, int | None], None]


class _Look(NamedTuple):
    """What is known of an input before it is read: its columns, and which are carried along."""

    name: InputName
    layout: Layout | None
    num_rows: int | None
    kept: tuple[Any, ...]


class _Work(NamedTuple):
    """Rows that are computed, and where what comes of them belongs.

    pending: what comes of them; None where a run before has done them.
    rows: what was asked; None of a draw. table: that they came in, where they did.
    file, number: of the input and of its slab.
    """

    file: int
    number: int
    pending: PendingCall | None = None
    rows: InputRows | None = None
    table: Any = None


def run(plan: FilePlan, show: ShowProgress = lambda done, total: None) -> FileSummary:
    """Do what is asked of some files.

    Raises:
        ValueError, OSError: the files, the model or the options cannot be used; what a run has done
            until then is kept for one that resumes.
        BadRow: a row has no answer, where that is to end the run.
    """
    suffix, partial = plan.suffix, PartialOutput(plan.out)
    if plan.out.exists() and not plan.overwrite and not plan.resume:
        raise ValueError(f"{plan.out}: it exists; --overwrite replaces it")
    names = find_inputs(plan.inputs)
    for name in names:
        name.check()
        if not name.is_remote and plan.out.exists() and os.path.samefile(name.path, plan.out):
            raise ValueError(f"{plan.out}: it is one of the files that are read; write another")
    is_stopped = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        # A processor has nothing to do while the model is loaded.
        versions = beside.submit(lambda: [name.version(is_stopped.is_set) for name in names])
        try:
            session = Session(plan.model, instances=plan.instances, num_threads=plan.num_threads)
            try:
                return _Run(plan, session, partial, show).complete(names, versions.result(), suffix)
            finally:
                partial.release()
                session.close()
        finally:
            is_stopped.set()


class _Run:
    """One run of a plan."""

    def __init__(
        self, plan: FilePlan, session: Session, partial: PartialOutput, show: ShowProgress
    ) -> None:
        self._plan = plan
        self._session = session
        self._partial = partial
        self._show = show
        self._card = session.card
        self._fields = dict(plan.fields)
        fdr = self._fields.get("fdr") if plan.operation == "score" else None
        self._discoveries = None if fdr is None else Discoveries(fdr)
        self._total: int | None = None
        self._summary = FileSummary(str(plan.out))

    def complete(self, names: list[InputName], versions: list[Any], suffix: str) -> FileSummary:
        """Compute the parts that are not there yet, and make the file of all."""
        plan = self._plan
        facts = make_facts(plan, self._session, versions)
        key = key_of(facts)
        if self._is_complete(suffix, key):
            self._summary.is_done_before = True
            return self._summary
        if self._discoveries is not None and self._fields.get("explain") is not None:
            raise ValueError(
                "explain: with fdr it is not known which rows are anomalies until all are scored; "
                "name alpha or threshold in its place"
            )
        # What cannot be used is said before anything of a run before is thrown away.
        probe = self._session.try_fields(plan.operation, self._fields, is_file=True)
        if plan.operation == "sample":
            self._prepare(key)
            facts |= {
                "fields": self._fields,
                "command": command_of(replace(plan, fields=self._fields)),
            }
            columns = OutputColumns.of(probe.outputs, self._card.feature_names, ())
            self._write(suffix, columns, (facts, key), self._draws())
        else:
            wanted = Wanted.of(
                self._session,
                plan.operation,
                columns=plan.columns,
                context=plan.context,
                keep=plan.keep,
            )
            looks = [self._look(name, wanted) for name in names]
            check_kept([(look.name.path, look.kept) for look in looks])
            self._prepare(key)
            self._fields.pop("fdr", None)
            counts = [look.num_rows for look in looks]
            known = [count for count in counts if count is not None]
            self._total = sum(known) if len(known) == len(counts) else None
            columns = OutputColumns.of(probe.outputs, self._card.feature_names, looks[0].kept)
            self._write(suffix, columns, (facts, key), self._slabs(looks, wanted))
        return self._summary

    def _look(self, name: InputName, wanted: Wanted) -> _Look:
        """See what is in a file; it is opened again when its turn has come."""
        with closing(open_input(name, self._slab_rows())) as file:
            layout = layout_of(file, wanted)
            return _Look(name, layout, file.num_rows, kept_fields(file, wanted.keep))

    def _is_complete(self, suffix: str, key: str) -> bool:
        """Whether there is nothing to go on with, since the file is whole.

        Raises:
            ValueError: it says itself that it is of other rows, another model or other options.
        """
        plan = self._plan
        if not plan.resume or plan.overwrite or not plan.out.exists():
            return False
        stored = self._partial.stored()
        if stored is not None and stored["key"] == key:
            return False
        if read_key(plan.out, self._partial) != key:
            raise ValueError(
                f"{plan.out}: it is complete, and of other rows, another model or other options; "
                "--overwrite begins anew"
            )
        return True

    def _prepare(self, key: str) -> None:
        """Find what an interrupted run has done, or begin anew.

        Raises:
            ValueError: it was of other rows, another model or other options.
        """
        plan, partial = self._plan, self._partial
        partial.lock()
        stored = partial.stored()
        is_same = stored is not None and stored["key"] == key
        if plan.resume and stored is not None and not is_same and not plan.overwrite:
            raise ValueError(
                f"{plan.out}: what an interrupted run has left is of other rows, another model or "
                "other options; --overwrite begins anew"
            )
        seed = self._fields.get("seed")
        if plan.resume and stored is not None and is_same:
            seed = stored["seed"]
        else:
            if plan.operation == "sample" and seed is None:
                seed = draw_seed()
            partial.begin({"key": key, "seed": seed})
        if plan.operation == "sample":
            self._fields["seed"] = self._summary.seed = seed

    def _slab_rows(self) -> int:
        fitting = max(1, _MOST_VALUES // self._card.features)
        return int(min(MOST_ROWS, 2 ** int(np.log2(fitting))))

    def _draws(self) -> Iterator[_Work]:
        total, size = self._plan.num_samples or 0, self._slab_rows()
        self._total = total
        skip = self._partial.count(0)
        yield from (_Work(0, index) for index in range(skip))
        for index, start in enumerate(range(skip * size, total, size), skip):
            call = RowCall("sample", self._fields, {}, min(size, total - start), start)
            yield _Work(0, index, self._session.start(call))

    def _slabs(self, looks: list[_Look], wanted: Wanted) -> Iterator[_Work]:
        for number, look in enumerate(looks):
            skip = self._partial.count(number)
            yield from (_Work(number, index) for index in range(skip))
            with closing(open_input(look.name, self._slab_rows())) as file:
                for index, slab in enumerate(file.slabs(look.layout, skip), skip):
                    rows = self._read(slab, file, look.layout, wanted)
                    call = rows.call(self._plan.operation, self._fields, wanted.tensor)
                    yield _Work(number, index, self._session.start(call), rows, slab.table)

    def _read(
        self, slab: Slab, file: InputFile, layout: Layout | None, wanted: Wanted
    ) -> InputRows:
        if layout is not None:
            codes: Codes = dict(slab.codes)
            return rows_of_table(
                slab.table, layout, wanted, self._card, codes=codes, decimal=file.decimal
            )
        assert slab.values is not None
        if slab.values[0].size != wanted.width:
            raise ValueError(
                f"{file.source}: expected rows of shape {wanted.shape}, got {slab.values.shape[1:]}"
            )
        return InputRows(slab.values.reshape(-1, *wanted.shape), None, {})

    def _write(
        self,
        suffix: str,
        columns: OutputColumns,
        told: tuple[dict[str, Any], str],
        work: Iterator[_Work],
    ) -> None:
        """Write slab by slab; where something decides over all of them, once all are there."""
        fresh, key = self._partial.whole(suffix), told[1]
        with table_writer(fresh, suffix, columns, provenance(*told)) as writer:
            places = []
            for place, table in self._tables(columns, work):
                if self._discoveries is None:
                    writer.write(table)
                else:
                    self._discoveries.add(table)
                    places.append(place)
            for place in places:
                assert self._discoveries is not None
                writer.write(self._discoveries.decide(self._partial.table(*place)))
        self._partial.finish(fresh, None if suffix == ".parquet" else key)

    def _tables(
        self, columns: OutputColumns, work: Iterator[_Work]
    ) -> Iterator[tuple[tuple[int, int], Any]]:
        """What comes of slab after slab; each is begun before the one before is waited for."""
        before: _Work | None = None
        for current in work:
            if before is not None:
                yield before[:2], self._finish(columns, before)
            before = current
        if before is not None:
            yield before[:2], self._finish(columns, before)

    def _finish(self, columns: OutputColumns, work: _Work) -> Any:
        """Wait for some rows, and keep what came of them.

        Raises:
            BadRow: one has no answer, where that is to end the run.
        """
        if work.pending is None:
            table = self._partial.table(work.file, work.number)
            self._summary.resumed_rows += table.num_rows
        else:
            table = columns.table(_result(work, work.pending), work.table)
        self._summary.add(table.column(STATUS))
        if self._plan.on_bad_row == "fail" and self._summary.bad_rows:
            first = self._summary.first_bad[0]
            raise BadRow(f"row {first['row']}: {first['status']}")
        if work.pending is not None:
            self._partial.add(work.file, work.number, table)
            self._show(self._summary.rows, self._total)
        return table


def _result(work: _Work, pending: PendingCall) -> CallResult:
    result = pending.result()
    if work.rows is None or not work.rows.codes:
        return result
    unknown = result.unknown.copy()
    unknown[list(work.rows.codes)] = True
    return result._replace(codes=work.rows.codes_with(result.codes), unknown=unknown)

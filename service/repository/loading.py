"""The loading of a model, from its folder to taking requests: prove, batchers, warm-up."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from models.checkpoints.facts import ModelFacts
from models.checkpoints.promise import broken_promise
from models.datasets.schema import class_names, discrete_names, feature_names
from models.families.costs import describe_cost
from service.batcher import Batcher, ComputeSlots, EngineCall, QueuePolicy
from service.contracts import Array, EngineOutput, ModelCard, ServedModel
from service.engines.cpu import share_cpu
from service.engines.engine import Engine, Operation, PipelinedEngine
from service.engines.flow_on_demand import FlowOnDemand
from service.engines.gpu_memory import (
    GpuMemory,
    MemoryOf,
    MemoryReader,
    memory_of,
    reading,
    taken_bytes,
)
from service.engines.judged import judged_call, judged_start
from service.engines.selection import EngineSelection
from service.engines.tf32 import tf32_facts
from service.errors import ServiceError
from service.launch.exits import StartupError
from service.repository.batch_policy import fit_policy, make_policy
from service.repository.calibrations import FoundCalibration, digest_weights, find_calibration
from service.repository.dedicated_thread import run_in_dedicated_thread
from service.repository.device_turns import DeviceTurns
from service.repository.engine_loading import load_engine
from service.repository.folders import ModelLocation, Stamp, stamp
from service.repository.on_demand_queue import OnDemandQueue, OnDemandQueues
from service.repository.overrides import ModelOverrides, read_overrides
from service.settings import Settings, flag_name
from service.telemetry import Metrics

# Half a batch of all operations together.
SLOW_BATCH_SECONDS = 1.0
# The same, where a full batch would take half of a start.
LONG_BATCH_SECONDS = 0.05

# How long the files of a calibration stay as they are once all of it is written, and how often it
# is read at most until then.
SETTLED_SECONDS = 0.3
_MOST_READS = 10

# What Python says where a thread cannot be had; it has no class of its own.
_NO_THREAD = "can't start new thread"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A served model, the batchers behind it, and what its files were like when it was loaded.

    calibration_fault: why the calibration in its folder cannot be used; None where it can, or there
        is none.
    """

    served: ServedModel
    encode: Batcher
    decode: Batcher
    generate: Batcher | None
    stamp: Stamp
    calibration_fault: str | None = None
    on_demand: tuple[OnDemandQueue, ...] = ()

    @property
    def batchers(self) -> tuple[Batcher, ...]:
        """All of them."""
        two = (self.encode, self.decode)
        return two if self.generate is None else (*two, self.generate)

    @property
    def watched_batchers(self) -> tuple[Batcher, ...]:
        """All of them, and those that were made on demand."""
        made = (queue.batcher for queue in self.on_demand)
        return (*self.batchers, *(batcher for batcher in made if batcher is not None))

    async def drain(self) -> None:
        """Refuse new rows, finish the accepted ones, end the threads."""
        await asyncio.gather(*(batcher.drain() for batcher in self.batchers))
        await asyncio.gather(*(queue.drain() for queue in self.on_demand))

    def abort(self, detail: str) -> None:
        """Refuse new rows and the accepted ones, let the threads end."""
        for batcher in self.batchers:
            batcher.abort(detail)
        for queue in self.on_demand:
            queue.abort(detail)


async def load_model(
    location: ModelLocation,
    settings: Settings,
    metrics: Metrics,
    slots: ComputeSlots | None = None,
    *,
    turns: DeviceTurns | None = None,
    reader_of: MemoryOf = memory_of,
) -> LoadedModel:
    """Load a model, replay its golden rows, start its batchers and warm them up.

    Args:
        location: of its folder.
        settings: of the service.
        metrics: where its batchers count.
        slots: the thread budget of the process.
        turns: of the models that are loaded on one device.
        reader_of: gives what reads the memory of a device; None of a CPU.

    Raises:
        StartupError: the folder or the engine cannot be had, the engine fails on the warm-up, or
            all of this takes too long.
    """
    # Before the files are read: a change while they are makes another stamp.
    seen = stamp(location)
    overrides = read_overrides(location.folder, settings)
    try:
        # To wait for others is no part of what loading may take.
        async with (
            (turns or DeviceTurns()).of(overrides.device),
            asyncio.timeout(settings.load_timeout_seconds),
        ):
            reader = reader_of(overrides.device)
            # In a thread: a hung device is not to hold up those who are served.
            before = None
            if reader is not None:
                before = await run_in_dedicated_thread(lambda: reading(reader))
            loaded = await _load(location, overrides, metrics, slots, seen)
            return loaded if reader is None else _with_memory(loaded, metrics, reader, before)
    except TimeoutError:
        raise StartupError(
            f"{location.folder}: not loaded within {settings.load_timeout_seconds:g} s "
            f"({flag_name('load_timeout_seconds')})"
        ) from None
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        raise StartupError(
            f"{location.folder}: the machine grants no further thread: see its limits on memory "
            "and on processes (ulimit -a)"
        ) from None


def _with_memory(
    loaded: LoadedModel, metrics: Metrics, reader: MemoryReader, before: GpuMemory | None
) -> LoadedModel:
    """Say of a model what it took of which GPU."""
    after = reading(reader)
    if before is None or after is None:
        return loaded
    metrics.gpu.watch(reader.device, reader.card, reader.read)
    taken = {"taken_bytes": taken_bytes(before, after), "card": reader.card}
    served = loaded.served
    return replace(loaded, served=replace(served, card=replace(served.card, memory=taken)))


async def _load(
    location: ModelLocation,
    overrides: ModelOverrides,
    metrics: Metrics,
    slots: ComputeSlots | None,
    seen: Stamp,
) -> LoadedModel:
    began = time.monotonic()

    def policy_of(facts: ModelFacts) -> QueuePolicy:
        chosen = overrides.settings
        policy = make_policy(
            chosen, facts.features, is_solved=facts.is_continuous, device=overrides.device
        )
        share = share_cpu(chosen.instances, chosen.num_threads, chosen.workers)
        is_one = chosen.instances == "auto" and overrides.device != "cpu"
        if overrides.device != "cpu":
            policy = replace(policy, max_inline_seconds=0.0)
        return replace(policy, instances=1 if is_one else share.instances)

    facts, selection = await load_engine(
        location, overrides, lambda known: policy_of(known).max_batch_rows
    )
    policy = fit_policy(policy_of(facts), selection)
    chosen = overrides.settings
    threads = share_cpu(chosen.instances, chosen.num_threads, chosen.workers).threads
    card = make_card(location, facts, selection, overrides.settings.batching)
    _, card, fault = await calibrate_card(location, card)
    if "warning" in card.accuracy:
        _log.warning("%s: %s", card.name, card.accuracy["warning"])
    # A GPU computes while its thread waits: that costs nobody a processor.
    queues = _Queues(policy, metrics, slots if overrides.device == "cpu" else None)
    loaded = _connect(card, selection.engine, queues, seen, is_solved=facts.is_continuous)
    loaded = replace(loaded, calibration_fault=fault)
    loaded = _with_on_demand(loaded, location, queues, threads, is_continuous=facts.is_continuous)
    try:
        await _warm_up(loaded, policy.max_batch_rows)
    except BaseException as error:
        loaded.abort("this version is not served")
        if isinstance(error, ServiceError):
            raise StartupError(f"{location.folder}: warm-up: {error.detail}") from None
        raise
    shown = (card.name, card.family, card.num_parameters, card.engine, card.device, card.dtype)
    _log.info(
        "%s: %s, %d parameters, %s on %s in %s, %d rows a batch, ready after %.1f s",
        *shown,
        policy.max_batch_rows,
        time.monotonic() - began,
    )
    return loaded


def _with_on_demand(
    loaded: LoadedModel,
    location: ModelLocation,
    queues: "_Queues",
    threads: int,
    *,
    is_continuous: bool,
) -> LoadedModel:
    card = loaded.served.card
    flow = FlowOnDemand(
        location.folder,
        weights=card.weights,
        dtype=card.dtype,
        device=card.device,
        threads=threads,
    )
    make = OnDemandQueues(card, flow, queues.policy, queues.metrics, queues.slots)
    gradient, states = make.gradients(), make.states(is_continuous=is_continuous)
    served = replace(loaded.served, gradient=gradient, states=states)
    on_demand = (states,) if gradient is None else (gradient, states)
    return replace(loaded, served=served, on_demand=on_demand)


async def recalibrate(location: ModelLocation, loaded: LoadedModel) -> LoadedModel:
    """Read the calibration of a loaded model anew; its batchers go on."""
    seen, card, fault = await calibrate_card(location, loaded.served.card)
    served = replace(loaded.served, card=card)
    return replace(loaded, served=served, stamp=seen, calibration_fault=fault)


async def calibrate_card(
    location: ModelLocation, card: ModelCard
) -> tuple[Stamp, ModelCard, str | None]:
    """Add to a card what lies in the folder of the calibration of anomaly scores.

    What cannot be used may be half of what is being written: it is read again until its files have
    not changed for a moment.

    Returns:
        What the files were like, the card, and why what lies there cannot be used.
    """

    def read() -> tuple[str, FoundCalibration]:
        weights = card.weights or digest_weights(location.folder)
        return weights, find_calibration(location.folder, replace(card, weights=weights))

    for _ in range(_MOST_READS):
        seen = stamp(location)
        weights, (calibration, fault) = await run_in_dedicated_thread(read)
        if fault is None:
            break
        await asyncio.sleep(SETTLED_SECONDS)
        if stamp(location) == seen:
            break
    return seen, replace(card, weights=weights, calibration=calibration), fault


def make_card(
    location: ModelLocation, facts: ModelFacts, selection: EngineSelection, batching: str
) -> ModelCard:
    """Make the model card: what users see of a model."""
    engine = selection.engine
    is_fixed = batching == "invariant" and selection.is_neighbour_invariant
    is_same_anywhere = is_fixed or selection.is_batch_invariant
    promise: dict[str, Any] = {
        "batching": batching,
        "is_bitwise_reproducible": is_same_anywhere,
    }
    if facts.is_continuous and (warning := broken_promise(facts.accuracy)):
        promise["warning"] = warning
    if engine.device != "cpu":
        promise["tf32"] = tf32_facts()
    if selection.precision:
        promise["precision"] = selection.precision
    if selection.certificate:
        promise["certificate"] = selection.certificate
    return ModelCard(
        name=location.name,
        version=location.version,
        family=facts.family,
        event_shape=facts.event_shape,
        context_shape=facts.context_shape,
        num_classes=facts.num_classes,
        num_levels=facts.num_levels,
        support=facts.support,
        dtype=engine.dtype,
        engine=engine.name,
        device=engine.device,
        num_parameters=facts.num_parameters,
        provenance=dict(facts.provenance),
        accuracy={**facts.accuracy, **promise},
        config=dict(facts.config),
        engine_choice=selection.comparison,
        feature_names=feature_names(facts.provenance) or None,
        class_names=class_names(facts.provenance) or None,
        discrete=discrete_names(facts.discrete, facts.provenance),
        cost=describe_cost(facts.family),
    )


class _Queues(NamedTuple):
    """What all queues of a model have in common."""

    policy: QueuePolicy
    metrics: Metrics
    slots: ComputeSlots | None


def _connect(
    card: ModelCard,
    engine: Engine,
    queues: _Queues,
    seen: Stamp,
    *,
    is_solved: bool,
) -> LoadedModel:
    data, latent = card.event_shape, (card.features,)

    def batcher(
        name: Operation,
        call: Callable[[Array, Array | None], EngineOutput],
        *shapes: tuple[int, ...],
    ) -> Batcher:
        takes, gives = shapes
        start = partial(engine.start, name) if isinstance(engine, PipelinedEngine) else None
        engine_call = EngineCall(
            judged_call(call, card.device),
            takes,
            gives,
            card.context_shape,
            card.dtype,
            judged_start(start, card.device),
        )
        counters = queues.metrics.queue(card.name, name, card.engine, version=card.version)
        full_name = f"{card.name}.{name}"
        return Batcher(engine_call, queues.policy, counters, name=full_name, slots=queues.slots)

    encode = batcher("encode", engine.encode, data, latent)
    decode = batcher("decode", engine.decode, latent, data)
    generate = batcher("generate", engine.generate, latent, data) if is_solved else None
    served = ServedModel(card, encode, decode, generate)
    return LoadedModel(served, encode, decode, generate, seen)


async def _warm_up(loaded: LoadedModel, max_rows: int) -> None:
    """Run every operation on a few batches, in the threads that will serve.

    Half a batch gives the throughput, one row what a call costs besides. Where they take long, a
    full batch, and then one row, give nothing more: a first call pays far less for memory.

    The rows are those the latents 0 stand for: every flow has them, and they are ordinary data.
    """
    for batcher in loaded.batchers:
        batcher.start()
    began = time.monotonic()
    await _run_once(loaded, math.ceil(max_rows / 2))
    took = time.monotonic() - began
    if took < SLOW_BATCH_SECONDS:
        await _run_once(loaded, 1)
    if took < LONG_BATCH_SECONDS:
        await _run_once(loaded, max_rows)


async def _run_once(loaded: LoadedModel, rows: int) -> None:
    card = loaded.served.card
    z = np.zeros((rows, card.features), card.numpy_dtype)
    context = None
    if card.context_shape is not None:
        context = np.zeros((rows, *card.context_shape), card.numpy_dtype)
        if card.num_classes is not None:
            context[:, 0] = 1
    result = await loaded.decode.warm_up(z, context)
    await loaded.encode.warm_up(result.value, context)
    if loaded.generate is not None:
        await loaded.generate.warm_up(z, context)

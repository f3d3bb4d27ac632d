"""Which processes there are to be: how many, and on which GPU each of them computes.

Models that fit beside each other are served by one process a GPU, each of which has all of them:
the kernel gives a request to any. Those that do not fit are spread over the GPUs, by one process
that sees them all; so are models of which one names its GPU itself, and models that clients may
load.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.engines.gpus import Gpu, chosen_gpus, usable_gpus
from service.launch.exits import StartupError
from service.settings import Settings, flag_name

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The processes of a service.

    cards: of each process the GPU that it has to itself; None where its settings say what it uses.
    spread: the GPUs over which the only process spreads its models; none where it does not.
    """

    cards: tuple[Gpu | None, ...]
    spread: tuple[Gpu, ...] = ()


def plan_processes(
    settings: Settings, find: Callable[[], Sequence[Gpu]] = usable_gpus
) -> ProcessPlan:
    """Plan the processes; nothing but the number of `workers` where there are not several GPUs.

    Args:
        settings: of the service.
        find: gives the GPUs that this process sees and torch can use.

    Raises:
        StartupError: the GPUs that are named are not there, or the folders cannot be used.
    """
    as_set = ProcessPlan((None,) * settings.workers)
    if settings.device == "cpu":
        return as_set
    gpus = find()
    if settings.device == "auto" and len(gpus) < 2:
        return as_set
    try:
        chosen = chosen_gpus(settings.device, gpus)
    except ValueError as error:
        if len(gpus) < 2:
            return as_set  # others than NVIDIA's may be there: whoever loads the models asks torch
        raise StartupError(f"{flag_name('device')}: {error}; cpu always works") from None
    if len(chosen) < 2:
        return as_set
    count = max(settings.workers, len(chosen))
    reason = _why_one_process(settings, chosen, -(-count // len(chosen)))
    if not reason:
        cards = tuple(chosen[index % len(chosen)] for index in range(count))
        _log.info("%d processes, on %s", count, ", ".join(one.device for one in chosen))
        return ProcessPlan(cards)
    if settings.workers > 1:
        raise StartupError(f"{flag_name('workers')}: {reason}: leave it at 1")
    _log.info("one process for %d GPUs: %s", len(chosen), reason)
    return ProcessPlan((None,), chosen)


def _why_one_process(settings: Settings, chosen: Sequence[Gpu], processes_a_gpu: int) -> str:
    # Much is imported with it, and only where there are several GPUs.
    from service.repository.folders import zoo_folder
    from service.repository.overrides import own_device
    from service.repository.placement import fits_on_each, needed_bytes
    from service.repository.sources import local_folders, told_by_uri
    from service.repository.version_policy import find_live

    if settings.enable_model_control:
        return f"{flag_name('enable_model_control')} reaches one process"
    with told_by_uri(settings):
        locations = find_live(local_folders(settings) or (zoo_folder(),), settings)
    devices = [own_device(location.folder) for location in locations]
    placed = list(zip(locations, devices, strict=True))
    named = [location.name for location, device in placed if ":" in device]
    if named:
        return f"{named[0]} names its device"
    needs = [needed_bytes(location.folder) for location, device in placed if device != "cpu"]
    if not fits_on_each(needs, chosen, processes_a_gpu):
        return "the models do not fit beside each other on each of them"
    return ""

"""How many processes there are on which GPUs, by GPUs that are made up."""

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from service.engines.gpus import VISIBLE, Gpu
from service.launch.exits import StartupError
from service.launch.processes import ProcessPlan, plan_processes
from service.launch.supervisor import RestartPolicy, Supervisor
from service.launch.worker_process import READY, run_on_card
from service.repository.folders import ModelLocation
from service.repository.overrides import read_overrides
from service.repository.placement import ModelPlacement
from service.settings import Settings, SettingsError, read
from service.telemetry.aggregation import Peers

GIB = 2**30
GPUS = (Gpu(0, "GPU-a", 80 * GIB), Gpu(1, "GPU-b", 80 * GIB), Gpu(2, "GPU-c", 40 * GIB))

Find = Callable[[], tuple[Gpu, ...]]


def gpus(count: int = 3) -> Find:
    return lambda: GPUS[:count]


@pytest.fixture
def models(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of models with weights of so many GiB, which take no room on the disk."""

    def make(**sizes: float) -> Path:
        for name, size in sizes.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text("{}")
            with (tmp_path / name / "model.safetensors").open("wb") as file:
                file.truncate(int(size * GIB))
        return tmp_path

    return make


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_gpu_has_a_process(device: str) -> None:
    assert plan_processes(read({"device": device}), gpus()).cards == GPUS


def test_some_gpus_can_be_named() -> None:
    assert plan_processes(read({"device": "cuda:2,0"}), gpus()).cards == (GPUS[2], GPUS[0])


def test_more_workers_share_the_gpus() -> None:
    plan = plan_processes(read({"workers": 4}), gpus())
    assert plan.cards == (*GPUS, GPUS[0])


@pytest.mark.parametrize(
    ("given", "find"),
    [
        ({"device": "cpu"}, gpus()),
        ({"device": "cuda:1"}, gpus()),
        ({"device": "auto"}, gpus(1)),
        ({"device": "cuda"}, gpus(0)),
        ({}, gpus(0)),
    ],
)
def test_one_device_needs_one_process(given: dict[str, object], find: Find) -> None:
    assert plan_processes(read(given), find) == ProcessPlan((None,))
    assert plan_processes(read({**given, "workers": 2}), find) == ProcessPlan((None, None))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:0,3", "--device: expected some of 3 CUDA devices, got cuda:0,3"),
        ("cuda:1,1", "--device: expected each device once"),
    ],
)
def test_gpus_that_are_not_there_keep_the_service_from_starting(device: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        plan_processes(read({"device": device}), gpus())


@pytest.mark.parametrize("device", ["cuda:", "cuda:0,", "cuda:a", "cuda:0;1", "cuda,0", "gpu"])
def test_other_words_are_no_device(device: str) -> None:
    with pytest.raises(SettingsError, match="--device"):
        read({"device": device})


def test_models_that_do_not_fit_beside_each_other_are_spread_by_one_process(
    models: Callable[..., Path],
) -> None:
    folder = models(large=15, medium=10, small=5, tiny=0.1)
    settings = read({"model_repository": str(folder), "device": "cuda:0,1"})
    assert plan_processes(settings, gpus()) == ProcessPlan(GPUS[:2])
    # Beside a smaller GPU they do not.
    settings = read({"model_repository": str(folder)})
    assert plan_processes(settings, gpus()) == ProcessPlan((None,), GPUS)
    with pytest.raises(StartupError, match="--workers: the models do not fit beside each other"):
        plan_processes(read({"model_repository": str(folder), "workers": 3}), gpus())


def test_processes_that_share_a_gpu_share_its_memory(models: Callable[..., Path]) -> None:
    settings = {"model_repository": str(models(large=20)), "device": "cuda:0,1"}
    assert len(plan_processes(read(settings), gpus()).cards) == 2
    with pytest.raises(StartupError, match="--workers: the models do not fit"):
        plan_processes(read({**settings, "workers": 4}), gpus())


def test_a_model_that_names_its_device_is_found_by_one_process(
    models: Callable[..., Path],
) -> None:
    folder = models(one=0.1, other=0.1)
    (folder / "one" / "serving.toml").write_text('device = "cuda:1"\n')
    settings = read({"model_repository": str(folder)})
    assert plan_processes(settings, gpus()) == ProcessPlan((None,), GPUS)
    # On a CPU a model takes nothing of a GPU.
    (folder / "one" / "serving.toml").write_text('device = "cpu"\n')
    assert plan_processes(settings, gpus()) == ProcessPlan(GPUS)


def test_clients_that_load_models_reach_the_only_process() -> None:
    settings = read({"enable_model_control": True})
    assert plan_processes(settings, gpus()) == ProcessPlan((None,), GPUS)


def places(folder: Path) -> list[ModelLocation]:
    return [ModelLocation(path.name, "1", path) for path in sorted(folder.iterdir())]


def test_models_are_placed_where_most_is_free(
    models: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    locations = places(models(a=15, b=14, c=12, d=2))
    placement = ModelPlacement(GPUS)
    placement.place(locations)
    found = {location.name: placement.device_of(location) for location in locations}
    assert found == {"a": "cuda:0", "b": "cuda:1", "c": "cuda:1", "d": "cuda:0"}
    assert not caplog.records
    # Those that come later stay where they were put, too.
    late = {name: ModelLocation(name, "1", locations[0].folder) for name in ("x", "y", "z")}
    assert [placement.device_of(late[name]) for name in "xyx"] == ["cuda:0", "cuda:2", "cuda:0"]
    assert not caplog.records
    assert placement.device_of(late["z"]) == "cuda:1"
    (record,) = caplog.records
    assert record.getMessage() == (
        "z: takes about 30976 MiB, and cuda:1 has about 18944 MiB left beside the others"
    )


def report(
    settings: Settings, _: socket.socket, supervisor: Connection, peers: Peers, restarts: int
) -> None:
    """Be a worker that says what it sees, and is lost once."""
    line = {"see": os.environ[VISIBLE], "device": settings.device, "restarts": restarts}
    folder = Path(os.environ["REPORTS"])
    (folder / f"{peers.index}-{restarts}").write_text(json.dumps(line))
    supervisor.send_bytes(READY)
    supervisor.recv_bytes()
    if restarts == 0 and peers.index == 1:
        os._exit(7)
    while len(list(folder.iterdir())) < 3:
        time.sleep(0.01)
    os._exit(9)


def test_a_worker_sees_its_gpu_alone_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORTS", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with ExitStack() as stack:

        def bind() -> socket.socket:
            return stack.enter_context(socket.socket())

        Supervisor(
            read({"device": "cuda:0,2"}),
            [bind(), bind()],
            bind,
            run_worker=report,
            policy=RestartPolicy(back_off_seconds=(0.01,)),
            cards=(GPUS[0], GPUS[2]),
        ).run()
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    first = {"see": "GPU-a", "device": "cuda:0", "restarts": 0}
    assert found["0-0"] == first
    assert found["1-0"] == {**first, "see": "GPU-c"}
    assert found["1-1"] == {**first, "see": "GPU-c", "restarts": 1}


def test_a_worker_without_a_gpu_of_its_own_sees_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VISIBLE, "GPU-a,GPU-b")
    seen: list[tuple[str, str]] = []

    def run(settings: Settings, *_: object) -> None:
        seen.append((os.environ[VISIBLE], settings.device))

    run_on_card(None, run, read({"device": "cuda:1"}))
    module = "service.launch.worker_process.is_torch_for_gpus"
    # `auto` stays where torch is a build that cannot use the GPU.
    monkeypatch.setattr(module, lambda: False)
    run_on_card(GPUS[2], run, read({}))
    # Else the GPU is used, or it is an error.
    monkeypatch.setattr(module, lambda: True)
    run_on_card(GPUS[2], run, read({}))
    assert seen == [("GPU-a,GPU-b", "cuda:1"), ("GPU-c", "auto"), ("GPU-c", "cuda:0")]


def test_a_model_on_the_cpu_stays_there_beside_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "serving.toml").write_text('device = "cpu"')
    assert read_overrides(tmp_path, read({"device": "cuda:0"})).device == "cpu"


def test_the_plan_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        plan_processes(read({}), gpus())
        plan_processes(read({"enable_model_control": True}), gpus())
    assert [record.getMessage() for record in caplog.records] == [
        "3 processes, on cuda:0, cuda:1, cuda:2",
        "one process for 3 GPUs: --enable-model-control reaches one process",
    ]

"""The engine that is named, or the fastest that works; nothing that is not the model."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch

import models
from models.checkpoints.folder import load_checkpoint
from models.onnx.export import export_folder
from models.onnx.runtime import RuntimeMissing
from service.contracts import Array, EngineOutput
from service.engines.autotune import best, select_engine
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.engines.registry import CHOICES, ENGINES, EngineSpec
from service.engines.replay import Misfit
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable
from service.engines.torch import TorchEngine
from service.settings import Settings
from tests.cases import make_flow, make_inputs
from tests.models.onnx.test_validate import change, larger_constant

# One process for all: what they share takes longer to make than they take.
pytestmark = pytest.mark.xdist_group("autotune")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain`: a model. `exported`: the same with its graphs."""
    folder = tmp_path_factory.mktemp("selection")
    models.save(make_flow("realnvp"), folder / "plain", dtype=torch.float32)
    shutil.copytree(folder / "plain", folder / "exported")
    export_folder(folder / "exported").write(folder / "exported")
    return folder


def config(folder: Path, dtype: torch.dtype | None = None, **changes: int) -> EngineConfig:
    sizes = {"threads": 1, "max_rows": 8} | changes
    return EngineConfig(load_checkpoint(folder, dtype=dtype), **sizes)


def answers(selection: EngineSelection) -> Any:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    return selection.engine.encode(x, None)


@pytest.mark.parametrize("name", ["torch", "folded", "onnx"])
@pytest.mark.parametrize("folder", ["plain", "exported"])
def test_the_engine_that_is_named_is_taken(name: str, folder: str, folders: Path) -> None:
    selection = select_engine(name, config(folders / folder))
    assert selection.engine.name == name
    assert bool(selection.certificate) == (name == "onnx")
    assert selection.is_batch_invariant == (name == "onnx")
    assert selection.comparison == {}
    wanted = answers(select_engine("torch", config(folders / folder)))
    for got, same in zip(answers(selection), wanted, strict=True):
        np.testing.assert_allclose(got, same, rtol=1e-5, atol=1e-5)


def test_several_threads_promise_no_bits(folders: Path) -> None:
    assert not select_engine("onnx", config(folders / "exported", threads=2)).is_batch_invariant


def test_auto_compares_all_that_work(folders: Path) -> None:
    selection = select_engine("auto", config(folders / "plain"))
    seconds = selection.comparison["seconds_a_call"]
    assert set(seconds) == {"torch", "folded", "onnx"}
    assert selection.engine.name == best(seconds)
    assert selection.comparison["refused"] == {}
    for points in seconds.values():
        assert set(points) == {"encode_1", "decode_1", "encode_8", "decode_8"}
        assert all(0 < one < 10 for one in points.values())


def test_graphs_of_the_folder_are_taken_uncompared(folders: Path) -> None:
    def never(_: Callable[[], object]) -> float:
        raise AssertionError("an engine was timed")

    selection = select_engine("auto", config(folders / "exported"), time_call=never)
    assert selection.engine.name == "onnx"
    assert selection.comparison == {"seconds_a_call": {}, "refused": {}}


def test_the_fastest_on_the_average_is_taken() -> None:
    seconds = {
        "torch": {"encode_1": 1.0, "encode_8": 1.0},
        "folded": {"encode_1": 0.5, "encode_8": 1.8},
        "onnx": {"encode_1": 0.1, "encode_8": 20.0},
    }
    assert best(seconds) == "folded"


@pytest.mark.parametrize(("lead", "chosen"), [(1.04, "onnx"), (1.06, "torch")])
def test_onnx_is_taken_where_another_is_hardly_faster(lead: float, chosen: str) -> None:
    assert best({"torch": {"encode_1": 1.0}, "onnx": {"encode_1": lead}}) == chosen


def test_auto_says_why_an_engine_was_left_out(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RuntimeMissing("onnxruntime cannot be imported")

    monkeypatch.setattr("models.onnx.runtime.load_runtime", missing)
    selection = select_engine("auto", config(folders / "plain"))
    assert selection.engine.name in ("torch", "folded")
    assert selection.comparison["refused"] == {"onnx": "onnxruntime cannot be imported"}


def stale(folder: Path) -> None:
    flow = models.load(folder)
    with torch.no_grad():
        next(flow.parameters()).add_(0.01)
    models.save(flow, folder.with_name("retrained"))
    for name in ("model.safetensors", "golden.safetensors"):
        shutil.copy(folder.with_name("retrained") / name, folder / name)


def truncated(folder: Path) -> None:
    content = (folder / "encode.onnx").read_bytes()
    (folder / "encode.onnx").write_bytes(content[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"), [(stale, "weights_sha256"), (truncated, r"encode\.onnx")]
)
def test_bad_graphs_are_refused_and_auto_goes_without(
    spoil: Callable[[Path], None], message: str, folders: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(folders / "exported", tmp_path / "model")
    spoil(folder)
    with pytest.raises(EngineUnavailable, match=f"engine onnx: .*{message}"):
        select_engine("onnx", config(folder))
    selection = select_engine("auto", config(folder))
    assert selection.engine.name in ("torch", "folded")
    assert message.replace("\\", "") in selection.comparison["refused"]["onnx"]


def test_graphs_in_another_precision_are_refused(folders: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"graphs are in float32 .* served in float64"):
        select_engine("onnx", config(folders / "exported", dtype=torch.float64))


def test_graphs_that_miss_the_golden_rows_are_refused(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "service.engines.onnx.worst_misfit", lambda *_: Misfit("z", float("nan"), 1e-5)
    )
    with pytest.raises(EngineUnavailable, match=r"do not reproduce the golden rows.*off by nan"):
        select_engine("onnx", config(folders / "exported"))


@pytest.mark.parametrize("case", ["realnvp", "maf", "glow", "nsf", "ffjord"])
def test_one_constant_that_is_five_percent_off_is_seen(case: str, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    models.save(make_flow(case), exported, dtype=torch.float32)
    export_folder(exported).write(exported)
    assert select_engine("onnx", config(exported)).engine.name == "onnx"
    (exported / "certificate.json").unlink()  # with the digests
    for name in ("encode.onnx", "decode.onnx"):
        folder = shutil.copytree(exported, tmp_path / name)
        change(folder, larger_constant, name)
        with pytest.raises(EngineUnavailable, match="do not reproduce the golden rows"):
            select_engine("onnx", config(folder))
        assert "golden rows" in select_engine("auto", config(folder)).comparison["refused"]["onnx"]


def test_no_certificate_allows_more_than_certificates_do(folders: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folders / "exported", tmp_path / "model")
    (folder / "certificate.json").unlink()

    def boast(model: onnx.ModelProto) -> None:
        (entry,) = (one for one in model.metadata_props if one.key == "certificate")
        facts = json.loads(entry.value)
        for measured in ("log_prob", "z", "x", "sample_log_prob"):
            facts[measured]["max"] = 1e9
        entry.value = json.dumps(facts)

    for name in ("encode.onnx", "decode.onnx"):
        change(folder, boast, name)
    assert select_engine("onnx", config(folder)).engine.name == "onnx"
    change(folder, larger_constant)
    with pytest.raises(EngineUnavailable, match="do not reproduce the golden rows"):
        select_engine("onnx", config(folder))


def test_float64_models_get_float64_graphs(tmp_path: Path) -> None:
    models.save(make_flow("maf"), tmp_path / "model")
    selection = select_engine("onnx", config(tmp_path / "model"))
    assert (selection.engine.dtype, selection.certificate["precision"]) == ("float64", "float64")


def test_slow_models_are_not_exported_while_a_server_starts(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engines.onnx_graphs.SLOW_ROW_SECONDS", 0.0)
    assert (
        "run pushforward export"
        in select_engine("auto", config(folders / "plain")).comparison["refused"]["onnx"]
    )
    # Those that were exported before are.
    assert select_engine("auto", config(folders / "exported")).comparison["refused"] == {}


def continuous(name: str, folder: Path, **options: Any) -> EngineSelection:
    flow = make_flow(name)
    models.save(flow.float(), folder, rows=make_inputs(name, flow))
    return select_engine("auto", config(folder, max_rows=2), **options)


def test_continuous_flows_are_exported_while_a_server_starts(tmp_path: Path) -> None:
    selection = continuous("ffjord", tmp_path / "model")
    assert selection.engine.name == "onnx"
    assert set(selection.comparison["refused"]) == {"folded"}


def test_continuous_flows_are_served_by_torch_where_nothing_else_is_there(tmp_path: Path) -> None:
    selection = continuous("ffjord_blend", tmp_path / "model")
    assert selection.engine.name == "torch"
    assert "serve it with torch" in selection.comparison["refused"]["onnx"]


def test_slow_solves_are_not_exported_while_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engines.onnx_graphs.SLOW_SOLVE_SECONDS", 0.0)
    # A call that takes long is timed once: there is nothing to compare it with.
    timed: list[float] = []
    selection = continuous(
        "ffjord", tmp_path / "model", time_call=lambda call: timed.append(1.5) or 1.5
    )
    assert "run pushforward export" in selection.comparison["refused"]["onnx"]
    assert selection.comparison["seconds_a_call"] == {"torch": {"encode_1": 1.5, "decode_1": 1.5}}
    assert len(timed) == 2


def test_an_unknown_engine_is_an_error_that_lists_those_there_are(folders: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"^engine cuda: expected one of auto, torch, "):
        select_engine("cuda", config(folders / "plain"))


@pytest.mark.parametrize("name", [name for name, spec in ENGINES.items() if spec.serves("cpu")])
def test_every_engine_of_the_table_can_be_made_and_is_called_so(name: str, folders: Path) -> None:
    made = ENGINES[name].load()(config(folders / "exported"))
    assert made.engine.name == name


@pytest.mark.parametrize("name", [name for name, spec in ENGINES.items() if spec.device == "cuda"])
def test_an_engine_of_cuda_says_so_on_a_cpu(name: str, folders: Path) -> None:
    with pytest.raises(EngineUnavailable, match=rf"^engine {name}: .* CUDA devices, .* is on cpu"):
        select_engine(name, config(folders / "plain"))


def test_engines_of_cuda_are_not_looked_at_on_a_cpu(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, spec in list(ENGINES.items()):
        if spec.device == "cuda":
            monkeypatch.setitem(ENGINES, name, EngineSpec("no.such.module", "none", device="cuda"))
    comparison = select_engine("auto", config(folders / "plain")).comparison
    assert set(comparison["seconds_a_call"]) == {"torch", "folded", "onnx"}
    assert comparison["refused"] == {}


class OnCuda:
    """An engine that says it computes on a device; logs the batches it is given."""

    device, dtype = "cuda:0", "float32"

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        self.name, self._log = name, log

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        self._log.append((self.name, len(x)))
        return x, x[:, 0]

    decode = generate = encode


@pytest.mark.parametrize(
    ("fused", "compared"),
    [((), (4, 8)), ((2, 4), (2, 4))],
    ids=["one-is-captured", "another-had-less-memory"],
)
def test_engines_are_compared_on_a_device_warm_and_at_the_sizes_that_were_captured(
    fused: tuple[int, ...],
    compared: tuple[int, ...],
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[tuple[str, int]] = []
    sizes = {"graphs": (4, 8), "fused": fused}
    made = {
        name: EngineSelection(OnCuda(name, log), batch_sizes=sizes.get(name, ()))
        for name in ENGINES
    }
    captured = {"graphs": {"encode": {"batch_sizes": [4, 8]}}}
    made["graphs"] = replace(made["graphs"], comparison=captured)
    for name, spec in list(ENGINES.items()):
        monkeypatch.setitem(ENGINES, name, replace(spec, module=f"made.{name}"))
    monkeypatch.setattr(EngineSpec, "load", lambda self: lambda config: made[self.module[5:]])
    on_cuda = cast(
        EngineConfig,
        SimpleNamespace(
            checkpoint=load_checkpoint(folders / "plain"),
            flow=SimpleNamespace(device=torch.device("cuda:0"), dtype=torch.float32),
            threads=1,
            max_rows=8,
            row_seconds=None,
            precision="float32",
        ),
    )
    monkeypatch.setattr("service.engines.autotune.replace", _replace_namespace)

    def time_call(call: Callable[[], object]) -> float:
        before = len(log)
        call()
        name, size = log[before]
        assert size == 1 or log[:before].count((name, size)) >= 2, "expected a warm engine"
        return 1.0 if name == "graphs" else 2.0

    selection = select_engine("auto", on_cuda, time_call=time_call)
    assert selection.engine.name == "graphs"
    assert selection.comparison["graphs"] == captured["graphs"]
    points = {f"{name}_{size}" for name in ("encode", "decode") for size in compared}
    assert all(set(one) == points for one in selection.comparison["seconds_a_call"].values())
    assert set(selection.comparison["seconds_a_call"]) == set(ENGINES)


def _replace_namespace(value: Any, **changes: Any) -> Any:
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**(vars(value) | changes))
    return replace(value, **changes)


@pytest.mark.parametrize("name", CHOICES)
def test_a_setting_may_name_every_engine(name: str) -> None:
    assert Settings(engine=name).engine == name


def test_a_setting_may_name_no_other_engine() -> None:
    with pytest.raises(
        ValueError, match=r"Input should be 'auto', 'torch', 'folded', 'onnx'.* 'graphs'"
    ):
        Settings(engine="cuda")


def test_the_help_names_every_engine() -> None:
    described = Settings.model_fields["engine"].description or ""
    assert all(spec.description in described for spec in ENGINES.values())


class FailingSpec(EngineSpec):
    """A line of the table whose engine cannot be made: its description says why."""

    def load(self) -> Any:
        def fail(_: EngineConfig) -> EngineSelection:
            raise RuntimeError(self.description)

        return fail


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", EngineOutOfMemory),
        ("CUDA error: device-side assert triggered", EngineLost),
    ],
)
@pytest.mark.parametrize("name", ["auto", "folded"])
def test_a_device_at_fault_is_no_reason_against_an_engine(
    name: str, text: str, kind: type[Exception], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "folded", FailingSpec("", text))
    made = config(folders / "plain")
    elsewhere = replace(made.checkpoint, flow=copy.deepcopy(made.flow).to("meta"))
    with pytest.raises(kind, match=text):
        select_engine(name, replace(made, checkpoint=elsewhere), time_call=lambda _: 1e-3)
    # On a CPU another engine may take less memory.
    if name == "auto":
        refused = select_engine(name, made, time_call=lambda _: 1e-3).comparison["refused"]
        assert refused["folded"] == text


def make_engine(config: EngineConfig) -> EngineSelection:
    """Make one more engine: its table line names this module."""
    return EngineSelection(TorchEngine(config.flow, name="further"))


def test_an_engine_is_one_line_more(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "further", EngineSpec(__name__, "torch, by another name"))
    assert select_engine("further", config(folders / "plain")).engine.name == "further"
    seconds = select_engine("auto", config(folders / "plain")).comparison["seconds_a_call"]
    assert set(seconds) == {"torch", "folded", "onnx", "further"}


def test_a_precision_goes_to_the_next_engine_where_one_cannot_be_made(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FailingSpec("", "no compiler", takes_precision=True)
    monkeypatch.setitem(ENGINES, "further", spec)
    made = replace(config(folders / "plain"), precision="bf16")
    with pytest.raises(EngineUnavailable, match="no compiler"):
        select_engine("further", made)
    monkeypatch.setattr("service.engines.precision.certify", lambda *_: _Certified())
    assert select_engine("auto", made).engine.name == "folded"


@dataclass(frozen=True)
class _Certified:
    name: str = "bf16"
    max_error_nats: float = 0.0
    bound_nats: float = 0.01
    rows: int = 1

    def describe(self) -> dict[str, Any]:
        return {}

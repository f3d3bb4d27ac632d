"""The tables and the picture of `bench_serving`."""

from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.load import Window
from benchmarks.servers import ONE_INSTANCE, OURS, SETTINGS, Server
from benchmarks.workloads import CEILING, TWO_WORKERS, Workload

AGAIN = "ours again"
# Of the default command over one instance.
MEMORY_TARGET = 1.2
HEADINGS = (
    "server",
    "requests/s",
    "rows/s",
    "p50 ms",
    "p99 ms",
    "errors",
    "default / it",
    "best / it",
)
COSTS = ("server", "ready s", "first answer s", "peak MiB")


def report(work: Workload, found: dict[str, Any]) -> dict[str, Any]:
    """Print the tables of one workload beside its targets.

    Returns:
        All of it, for JSON.
    """
    out: dict[str, Any] = {"failed": found["failed"], "at": {}}
    for concurrency, taken in found["windows"].items():
        print(f"\n### {work.name}, concurrency {concurrency}\n")
        print(_line(*HEADINGS), _line(*("---" for _ in HEADINGS)), sep="\n")
        default = ratios(taken, OURS)
        best = ratios(taken, best_setting(taken))
        for name, windows in taken.items():
            cells = (default[name], work.targets.get(name, {}).get(concurrency))
            print(_row(name, work, windows, cells, best[name]), flush=True)
        noise = abs_noise(taken)
        print(f"\nNoise: ours differs from itself by {100 * noise:.0f} %.")
        windows_of = {name: [asdict(w) for w in windows] for name, windows in taken.items()}
        out["at"][concurrency] = {
            "ratios": default,
            "best": best_setting(taken),
            "best_ratios": best,
            "noise": noise,
            "windows": windows_of,
        }
    _print_ceiling(work, found)
    _print_costs(found["up"], found["peaks"])
    out["peak_bytes"] = found["peaks"]
    out["seconds"] = {name: asdict(server) for name, server in found["up"].items()}
    return out | {"ceiling": found["ceiling"]}


def ratios(taken: dict[str, list[Window]], of: str) -> dict[str, float]:
    """Rate of one over that of each, the median of the rounds; infinite where it has none."""
    return {
        name: median(
            mine.rate / other.rate if other.rate else float("inf")
            for mine, other in zip(taken[of], windows, strict=True)
        )
        for name, windows in taken.items()
    }


def best_setting(taken: dict[str, list[Window]]) -> str:
    """Which of our settings is the fastest."""
    present = [name for name in SETTINGS if name in taken]
    return max(present, key=lambda name: median(w.rate for w in taken[name]))


def abs_noise(taken: dict[str, list[Window]]) -> float:
    """How much ours differs from its own second turn."""
    pairs = zip(taken[OURS], taken[AGAIN], strict=True)
    return median(abs(first.rate / second.rate - 1) for first, second in pairs)


def verdict(ratio: float, target: float | None, *, measured: bool = True) -> str:
    """What stands beside a ratio that has a target."""
    if target is None:
        return ""
    outcome = "met" if ratio >= target else "MISSED"
    return f" (target {target:g}: {outcome if measured else 'no answer to compare'})"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _row(
    name: str,
    work: Workload,
    windows: list[Window],
    compared: tuple[float, float | None],
    best: float,
) -> str:
    rate = median(w.rate for w in windows)
    p50, p99 = (median(getattr(w, which) for w in windows) for which in ("p50", "p99"))
    ratio, target = compared
    return _line(
        name,
        f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
        f"{rate * work.rows:,.0f}",
        f"{p50:.2f}",
        f"{p99:.2f}",
        str(sum(w.errors for w in windows)),
        f"{ratio:.2f}{verdict(ratio, target, measured=rate > 0)}",
        f"{best:.2f}",
    )


def _print_ceiling(work: Workload, found: dict[str, Any]) -> None:
    ceiling = found["ceiling"]
    text = f"\nThe graph alone: {ceiling['batch']} rows a call; the cores' large matrix product: "
    text += f"{ceiling['matrix_gflops']:.0f} GFLOP/s"
    if ceiling["gflop"] is not None:
        shares = []
        for taken in found["windows"].values():
            rate = median(w.rate for w in taken[CEILING])
            shares.append(f"{100 * rate * ceiling['gflop'] / ceiling['matrix_gflops']:.0f} %")
        text += f", of which the ceiling is {', '.join(shares)}"
    print(f"{text} ({work.name}).")


def _print_costs(up: dict[str, Server], peaks: dict[str, float]) -> None:
    print("\n" + _line(*COSTS), _line(*("---" for _ in COSTS)), sep="\n")
    for name, server in up.items():
        print(
            _line(
                name,
                f"{server.ready_seconds:.2f}",
                f"{server.answer_seconds:.2f}",
                f"{peaks[name] / 2**20:.0f}",
            )
        )
    if ONE_INSTANCE in peaks:
        ratio = peaks[OURS] / peaks[ONE_INSTANCE]
        outcome = "met" if ratio <= MEMORY_TARGET else "MISSED"
        print(
            f"\nMemory of the default over one instance: {ratio:.2f} "
            f"(at most {MEMORY_TARGET}: {outcome}).",
        )
    if TWO_WORKERS in peaks:
        print(f"Of two workers over the default: {peaks[TWO_WORKERS] / peaks[OURS]:.2f}.")


def draw(workloads: dict[str, Any], path: Path) -> None:
    """Draw every workload's requests a second as bars, one group a concurrency."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8 * len(workloads)), layout="constrained")
    for index, (name, found) in enumerate(workloads.items(), 1):
        axes = figure.add_subplot(len(workloads), 1, index)
        for place, one in enumerate(found["at"].values()):
            rates = {who: median(w["rate"] for w in ws) for who, ws in one["windows"].items()}
            for offset, (who, rate) in enumerate(rates.items()):
                label = who if place == 0 else None
                axes.bar(place * 20 + offset, rate, color=f"C{offset}", label=label)
        places = range(0, 20 * len(found["at"]), 20)
        axes.set_xticks([place + 6 for place in places], [f"c = {c}" for c in found["at"]])
        axes.set(title=name, ylabel="requests/s", yscale="log")
        axes.legend(fontsize="x-small", ncols=7)
    figure.savefig(path, dpi=120)

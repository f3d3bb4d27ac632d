"""The report of a run: one JSON and one Markdown file."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import Measurement, Results, as_json


def write(results: Results, folder: Path, machine: dict[str, Any]) -> tuple[Path, Path]:
    """Write all of it.

    Returns:
        The JSON file and the Markdown file.
    """
    json_file, markdown = folder / "gpu.json", folder / "gpu.md"
    found = {
        "machine": machine,
        "is_passed": results.is_passed,
        "seconds": round(results.elapsed, 1),
        "checks": results.checks,
        "measurements": results.measurements,
        "not_run": results.not_run,
    }
    json_file.write_text(json.dumps(as_json(found), indent=1) + "\n", encoding="utf-8")
    markdown.write_text(_markdown(results, machine), encoding="utf-8")
    return json_file, markdown


def _markdown(results: Results, machine: dict[str, Any]) -> str:
    lines = ["# GPU: checks and measurements", "", *_machine_lines(machine), ""]
    failed = Counter(check.part for check in results.failed)
    lines += ["| checks | passed | failed |", "|---|---|---|"]
    for part, count in Counter(check.part for check in results.checks).items():
        lines.append(f"| {part} | {count - failed[part]} | {failed[part]} |")
    if results.failed:
        lines += ["", "## Failed", ""]
        lines += [
            f"- {check.part}: {check.subject}: {check.what}: {_last_line(check.detail)}"
            for check in results.failed
        ]
    for table in dict.fromkeys(one.table for one in results.measurements):
        lines += ["", f"## {table}", ""]
        lines += _table([one for one in results.measurements if one.table == table])
    if results.not_run:
        lines += ["", "## Not run", "", "| part | what | why |", "|---|---|---|"]
        lines += [f"| {one.part} | {one.subject} | {one.reason} |" for one in results.not_run]
    return "\n".join([*lines, ""])


def _last_line(text: str) -> str:
    """What a traceback says at its end."""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"`{lines[-1]}`" if lines else ""


def _machine_lines(machine: dict[str, Any]) -> list[str]:
    shown = ("device", "card", "processor", "cores", "python", "pushforward", "torch", "torch_cuda",
             "cudnn", "onnxruntime", "onnxruntime_providers")  # fmt: skip
    lines = [f"- {key}: {machine[key]}" for key in shown if machine.get(key) is not None]
    lines += [
        f"- {', '.join(f'{key} {value}' for key, value in gpu.items())}" for gpu in machine["gpus"]
    ]
    return lines


def _table(measurements: list[Measurement]) -> list[str]:
    columns = list(dict.fromkeys(name for one in measurements for name in one.values))
    lines = [
        f"| what | candidate | {' | '.join(columns)} | goal |",
        "|---|---|" + "---|" * (len(columns) + 1),
    ]
    for one in measurements:
        values = [_shown(one.values.get(name, "")) for name in columns]
        met = {None: "", True: " (reached)", False: " (not reached)"}[one.is_reached]
        lines.append(
            f"| {one.subject} | {one.candidate} | {' | '.join(values)} | {one.goal}{met} |"
        )
    return lines


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"

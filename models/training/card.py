"""The model card: README.md beside a trained model, for whoever finds the folder."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.checkpoints.files import write_file
from models.training.options import TrainingOptions
from models.training.pictures import LOSS_FILE, SAMPLES_FILE
from models.training.report import DataFacts, TrainingReport
from models.transforms.preprocess import PIXEL_BITS

CARD_FILE = "README.md"

OBJECTIVES = {"likelihood": "Maximum likelihood", "flow_matching": "Conditional flow matching"}


def write_card(
    folder: Path,
    report: TrainingReport,
    *,
    summary: str = "",
    command: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write README.md.

    Args:
        folder: the model's; its name is the title.
        report: the finished run.
        summary: what the model is for, one sentence.
        command: what makes it again; left out, a `pushforward train` line where the data have a
            text for `load`.
        notes: further paragraphs.
    """
    facts = report.data
    lines = [
        f"# {folder.name}",
        "",
        summary or f"A `{report.family}` flow trained on {facts.name}.",
        "",
        f"![{_caption(report)}]({SAMPLES_FILE})",
        "",
        f"*{_caption(report)}.*",
        "",
        "## Figures",
        "",
        *_figures(report),
        "",
        "## Data",
        "",
        f"`{facts.spec or facts.name}`: {facts.source or 'given as an array'}.",
        f"Licence: {facts.licence or 'not stated'}. {facts.train_rows} rows trained on, "
        f"{_held_out(facts)}; split with seed {facts.seed}. {_identity(facts)}",
        "",
        *_schema(facts),
        "## Recipe",
        "",
        _recipe(report),
        "Everything else is in `config.json` and `training.json`.",
        "",
        *_command(command or (train_command(report, folder.name) if facts.spec else "")),
        f"![Loss curve]({LOSS_FILE})",
        *(line for note in notes for line in ("", note)),
        "",
    ]
    write_file(folder / CARD_FILE, "\n".join(lines).encode())


def _held_out(facts: DataFacts) -> str:
    rows = f"{facts.validation_rows} validation and {facts.test_rows} test rows"
    if facts.anomalies:
        rows += f" (of them {facts.anomalies} anomalies, never trained on)"
    return rows


def _recipe(report: TrainingReport) -> str:
    options = report.options
    stop = "early stopping" if report.stopped_early else "all epochs"
    ema = f"EMA {options['ema_decay']:g}, " if options["ema_decay"] else ""
    return (
        f"{OBJECTIVES[options['objective']]}, {report.parameters:,} parameters, "
        f"Adam at {options['learning_rate']:g} "
        f"({options['schedule']}, {options['warmup_steps']} steps of warm-up), "
        f"{options['batch_rows']} rows a step, gradient norm at most {options['clip_norm']:g}, "
        f"{ema}{len(report.history)} epochs ({stop}), best "
        f"{report.best_epoch}, {report.seconds:.0f} s."
    )


def _schema(facts: DataFacts) -> list[str]:
    """The columns that the model takes, by name, and its classes by index."""
    lines = []
    if facts.columns:
        lines += ["| | column | kind | unit | trained on |", "|---|---|---|---|---|"]
        for index, column in enumerate(facts.columns):
            name = str(column["name"]).replace("|", "\\|")
            span = f"{column['low']:g} .. {column['high']:g}"
            lines.append(
                f"| {index} | `{name}` | {column['kind']} | {column.get('unit', '')} | {span} |"
            )
        lines.append("")
    if facts.discrete:
        names = ", ".join(f"`{name}`" for name in facts.discrete)
        lines += [
            f"Discrete: {names}. They are whole numbers, trained on with uniform noise; log p is "
            "the density at the middle of their bins, and samples lie about them: round these "
            "columns to the nearest whole number.",
            "",
        ]
    if facts.class_names:
        classes = ", ".join(f"{index} = `{name}`" for index, name in enumerate(facts.class_names))
        lines += [f"Classes: {classes}.", ""]
    return lines


def _identity(facts: DataFacts) -> str:
    if facts.recipe:
        return f"Generated: `{facts.recipe}` names the same rows on every machine."
    return f"SHA-256 of the values: `{facts.sha256}`."


def train_command(report: TrainingReport, out: str) -> str:
    """The `pushforward train` line that repeats a run."""
    words = ["pushforward", "train", "--data", report.data.spec, "--family", report.family]
    for name, value in report.arguments.items():
        words += ["--set", f"{name}={json.dumps(value, separators=(',', ':'))}"]
    defaults = TrainingOptions().model_dump(mode="json")
    for name, value in report.options.items():
        if value != defaults[name]:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--out", out])


def _command(text: str) -> list[str]:
    return ["```sh", text, "```", ""] if text else []


def _figures(report: TrainingReport) -> list[str]:
    test = report.test
    rows = [("test rows", f"{test.rows}")]
    if test.bits_per_dim is not None and test.bits_per_dim_midpoint is not None:
        rows += [
            ("test bits/dim (uniform dequantization)", f"{test.bits_per_dim:.3f}"),
            ("test bits/dim (midpoint, as served)", f"{test.bits_per_dim_midpoint:.3f}"),
            *_reduced_bits(report, test.bits_per_dim),
        ]
    if test.log_density_midpoint is not None and test.log_likelihood_bound is not None:
        rows += [
            (
                "test log p at the middle of the integers' bins, as served, nats a row",
                f"{test.log_density_midpoint:.3f}",
            ),
            (
                "lower bound of the test rows' log-likelihood, integers as such, importance-"
                f"weighted over {test.bound_draws} draws of noise, nats a row",
                f"{test.log_likelihood_bound:.3f}",
            ),
        ]
    noise = " (uniform noise on discrete columns)" if report.data.discrete else ""
    rows += [
        (
            f"test -log p{noise}, nats a row",
            f"{test.nats:.3f} ± {test.nats_standard_error:.3f} (standard error)",
        ),
        *(_accuracy(report.accuracy) if report.accuracy else ()),
        (
            f"decode(encode(x)) - x in float32, largest{_of_rows(test.round_trip_rows)}",
            f"{test.round_trip_max_error:.1e}",
        ),
    ]
    if test.auroc is not None:
        rows.append((f"AUROC of -log p, {test.anomalies} anomalies", f"{test.auroc:.3f}"))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _of_rows(count: int | None) -> str:
    """Of how many rows; older reports do not say."""
    return "" if count is None else f" of {count} rows"


def _accuracy(found: Mapping[str, float]) -> list[tuple[str, str]]:
    """What config.json and `GET /models/NAME` have under `accuracy`, in the same words."""
    kinds = {name: round(found[f"{name}_rows"]) for name in ("held_out", "sample", "golden")}
    rows = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in kinds.items())
    relative, promised = (found[f"log_prob_{name}_relative_error"] for name in ("max", "promised"))
    return [
        (
            f"log p, error relative to max(1, abs(log p)), largest of {sum(kinds.values())} rows "
            f"({rows})",
            f"{relative:.1e} (promised: {promised:.0e})",
        ),
        ("the same in nats", f"{found['log_prob_max_abs_error']:.1e}"),
        (
            f"log p, largest errors of {round(found['odd_rows'])} odd rows (relative; in nats)",
            f"{found['odd_log_prob_max_relative_error']:.1e}; "
            f"{found['odd_log_prob_max_abs_error']:.1e}",
        ),
    ]


def _reduced_bits(report: TrainingReport, bits_per_dim: float) -> list[tuple[str, str]]:
    """The code length of the coarser image, where the flow drops bits: a bin is 2^(8-n) wide."""
    steps = report.config.get("preprocessing", ())
    return [
        (
            f"the same of the {step['bits']}-bit image (uniform dequantization)",
            f"{bits_per_dim - (PIXEL_BITS - step['bits']):.3f}",
        )
        for step in steps
        if step["kind"] == "reduce_bits"
    ]


def _caption(report: TrainingReport) -> str:
    temperature = report.options["picture_temperature"]
    if report.test.bits_per_dim is not None:
        return f"Left: test rows. Right: samples at temperature {temperature:g}"
    return f"Test rows and samples at temperature {temperature:g}"

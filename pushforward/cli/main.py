"""The `pushforward` command. Only the subcommand that is called is imported: help is immediate."""

import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer

# name -> what the help says; the first line of the command's own help (a test compares).
COMMANDS = {
    "serve": "Serve models over HTTP.",
    "inspect": "Show what a model folder holds and whether it reproduces itself.",
    "train": "Train a flow by maximum likelihood and write it as a model folder.",
    "evaluate": "Score data with a model: likelihood, float32 error, round trip, and AUROC of "
    "anomalies.",
    "client": "Ask a running server: sample, log-prob, encode, decode.",
    "export": "Write encode.onnx and decode.onnx of a model, certified against float64 torch.",
    "import": "Turn a checkpoint of public code into a model folder with the same likelihood.",
}
# Commands that cannot be names in Python.
_FUNCTIONS = {"import": "import_checkpoint"}


def main() -> None:
    """Run the command line; the entry point of the package."""
    # An interrupt that is raised inside an import is lost there, or breaks what is imported. What
    # has something to tidy up asks for it: `plain_errors.interruptible`, `training.interrupt`.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    build(sys.argv[1:])()


def build(arguments: Sequence[str]) -> typer.Typer:
    """Make the command line for these arguments: the command they name, and stand-ins."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    called = next((argument for argument in arguments if argument in COMMANDS), None)
    for name, summary in COMMANDS.items():
        command = load(name) if name == called else _stand_in
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, help=None if name == called else summary)(command)
    return app


def load(name: str) -> Callable[..., Any] | typer.Typer:
    """Import a command, a function or a group of them: that of its own name in its own module."""
    function = _FUNCTIONS.get(name, name)
    command: Callable[..., Any] | typer.Typer = getattr(
        import_module(f"pushforward.cli.{function}"), function
    )
    return command


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"pushforward {version('pushforward')}")
        raise typer.Exit


def _root(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Serve trained normalizing flows over HTTP, train them, look into them."""


def _stand_in() -> None:
    """Stand in the help for a command that was not called."""

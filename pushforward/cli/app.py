"""The command line as typer has it. Only the subcommand that is called is imported."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from pushforward.cli.commands import COMMANDS, find_command
from pushforward.version import package_version

# Commands that cannot be names in Python.
_FUNCTIONS = {"import": "import_checkpoint", "log-prob": "log_prob"}


def build(arguments: Sequence[str]) -> typer.Typer:
    """Make the command line for these arguments: the command they name, and stand-ins."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    called = find_command(arguments)
    for name, known in COMMANDS.items():
        command = load(name) if name == called else _stand_in
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, help=None if name == called else known.summary)(command)
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
        typer.echo(f"pushforward {package_version()}")
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

"""The `pushforward` command: starts with the standard library alone, and says what is missing."""

import signal
import sys
from typing import NoReturn

from pushforward.cli.commands import COMMANDS, find_command
from pushforward.siblings import SIBLINGS, ShadowedError, prefer_siblings
from pushforward.version import package_version

EXIT_USAGE = 2

# What is missing of these is a fault of ours, not an extra that is not installed.
_OURS = ("pushforward", *SIBLINGS)


def main() -> None:
    """Run the command line; the entry point of the package."""
    # An interrupt that is raised inside an import is lost there, or breaks what is imported. What
    # has something to tidy up asks for it: `plain_errors.interruptible`, `training.interrupt`.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(f"pushforward {package_version()}")
        return
    try:
        prefer_siblings()
        from pushforward.cli.app import build

        build(arguments)()
    except ShadowedError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        _refuse(_missing_extra(find_command(arguments)))


def _missing_extra(command: str | None) -> str:
    """One line: which extra a command needs, and how to install it."""
    from models.extras import install_command

    if command is None:
        return f"pushforward: needs the extra 'cli': {install_command('cli')}"
    first, *others = COMMANDS[command].extras
    either = f" (or {', '.join(map(repr, others))})" if others else ""
    return f"pushforward {command}: needs the extra {first!r}{either}: {install_command(first)}"


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(EXIT_USAGE)

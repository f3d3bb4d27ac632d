"""Where the command of 0.1.0 lay, `python -m service.cli`: it goes on until 0.3.0."""

import warnings

from pushforward.cli import main as command


def main() -> None:
    """Run the command line."""
    warnings.warn(
        "service.cli goes with pushforward 0.3.0: write `pushforward`, pushforward.cli.main:main",
        DeprecationWarning,
        stacklevel=2,
    )
    command.main()


if __name__ == "__main__":
    main()

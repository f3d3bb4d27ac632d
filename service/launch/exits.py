"""How a process of the service ends: its exit codes, and the reason not to begin.

0  a signal came and every accepted request was answered
1  an engine or a process was lost, or requests were given up when the grace was over
3  it could not start: a setting, a model or the address cannot be used
"""

import logging
import os
from typing import NoReturn

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_NO_START = 3


class StartupError(Exception):
    """The service cannot start; the message is one line that names the setting or the file."""


def hard_exit(code: int) -> NoReturn:
    """End now, whatever other threads do."""
    logging.shutdown()
    os._exit(code)

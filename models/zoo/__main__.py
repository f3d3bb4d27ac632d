"""`python -m models.zoo NAME` of 0.1.0: it goes on until 0.3.0."""

import importlib.util
import runpy
import sys
import warnings

warnings.warn(
    "python -m models.zoo goes with pushforward 0.3.0: write `python -m tools.zoo`",
    DeprecationWarning,
    stacklevel=1,
)
if importlib.util.find_spec("tools") is None or importlib.util.find_spec("tools.zoo") is None:
    sys.exit("models.zoo: the zoo is trained in a clone of the project: python -m tools.zoo")
runpy.run_module("tools.zoo", run_name="__main__", alter_sys=True)

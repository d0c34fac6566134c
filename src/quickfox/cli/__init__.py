"""The command line: the only package that writes to the terminal.

Results go to standard output, everything else to standard error. Commands import what they need when they run, so
that `llm --help` does not import NumPy and `llm generate` does not import TensorFlow.
"""

import time

STARTED = time.monotonic()
"""Start time of the command. Read first of all; the interpreter's own start-up, about 0.02 s, is not included."""

COMMANDS = (
    "build-vocab",
    "train",
    "generate",
    "serve",
    "evaluate",
    "score",
    "check",
    "info",
    "inspect",
    "report",
    "export",
)
"""In the order of the help text; each is the module of that name in `cli/commands`."""

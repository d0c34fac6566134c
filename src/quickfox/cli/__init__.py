"""The command line: the only room that prints, and the one place where errors become exit statuses.

The product goes to standard output, all else to standard error. Commands import what they need when they run, so
that `llm --help` does not wait for NumPy nor `llm generate` for TensorFlow.
"""

import time

STARTED = time.monotonic()
"""When the program started, for the seconds of a whole command. Reading it is the first thing that the program does;
the interpreter's own start, some 0.02 s before, is not counted."""

"""Hide what native libraries write to standard error, and show it if an error is raised."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Captures what is written to file descriptor 2; replays it if the body raises an exception.

    TensorFlow logs some lines before it reads its log level, so only redirecting the descriptor silences them.
    """
    try:
        captured = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError:  # no disk is writable: nothing is captured
        yield
        return
    sys.stderr.flush()
    original = os.dup(2)
    with captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:  # not for a request to stop
            os.dup2(original, 2)
            captured.seek(0)
            os.write(2, captured.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)

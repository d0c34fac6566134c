"""What native libraries write to standard error past Python: held back, unless it is needed to see what went wrong."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what native libraries write to file descriptor 2; replays it when the block fails.

    TensorFlow logs some lines before its log level is read, so only redirecting the descriptor silences them.
    """
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError:  # nowhere to hold it: all disks full or read-only
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # a request to stop says nothing about the libraries
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)

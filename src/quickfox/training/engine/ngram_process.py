"""The process that estimates n-gram tables, and its pipes: the job and the token ids in, the results out.

It is a new interpreter, which imports NumPy but not TensorFlow: a forked process could not use locks that other threads
held. It ends with the process that started it, however that one ends: its input is then closed. Objects are pickled,
because both ends are this program.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol

import numpy as np

from quickfox.data.dataset import Tokens
from quickfox.data.token_file import TokenSource
from quickfox.errors import BusyError, UnavailableError

_CHUNK_TOKENS = 2**22  # sent at a time


class Job(Protocol):
    """What the process computes; see `ngrams.EstimationJob`."""

    def results(self, ids: np.ndarray, validation_tokens: Tokens) -> Iterator[Any]:
        """Computes the results, from the counted tokens and the validation text."""


class EstimationProcess:
    """The process; it is started at once, so that it imports NumPy while the text is read.

    Raises:
        UnavailableError: it cannot be started.
    """

    def __init__(self) -> None:
        # A stop signal to all processes of a service is for the one that trains, which saves a checkpoint first.
        ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)"
        command = f"import signal, sys; {ignore}; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # errors are results
                process_group=0,  # Ctrl-C in a terminal is for the process that trains, which saves a checkpoint first
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot start a process that counts n-grams ({error.strerror}): free memory, or choose ngram off",
                "ngram",
            ) from None

    def kill(self) -> None:
        """Ends the process if it still runs."""
        self._process.kill()
        self._process.wait()

    def results(self, job: Job, chunks: Iterable[np.ndarray], validation_tokens: Tokens) -> Iterator[Any]:
        """As `Job.results`, in the process. Called once; blocks while the process computes.

        Args:
            job: what is estimated.
            chunks: the counted tokens, at least one chunk.
            validation_tokens: the validation text.

        Raises:
            BusyError: the process was killed.
            StorageError: the text cannot be read.
            MemoryError: there is not enough memory.
        """
        pipe, output = self._process.stdin, self._process.stdout
        assert pipe is not None
        assert output is not None
        with contextlib.closing(output):
            try:
                _send(pipe, job, chunks, validation_tokens)
                while not isinstance(result := pickle.load(output), _End):
                    if isinstance(result, BaseException):
                        raise result
                    yield result
                pipe.close()
            except (BrokenPipeError, EOFError, pickle.UnpicklingError):
                status = self._process.wait()
                raise BusyError(
                    f"the process that counts n-grams was ended (status {status}): free memory, or choose ngram off",
                    "ngram",
                ) from None
            finally:
                self.kill()


class _End:
    """The last message of the process."""


def _send(pipe: IO[bytes], job: Job, chunks: Iterable[np.ndarray], validation_tokens: Tokens) -> None:
    pickle.dump(job, pipe)
    for texts in (chunks, _chunks(validation_tokens.ids), _chunks(validation_tokens.loss_mask)):
        for chunk in texts:
            pickle.dump(chunk, pipe)
        pickle.dump(_End(), pipe)
    pipe.flush()


def _chunks(source: TokenSource | None) -> Iterator[np.ndarray]:
    """A text in parts that are sent at a time: at least one, or none if there is no such text."""
    if source is not None:
        yield source[0 : min(_CHUNK_TOKENS, len(source))]
        for start in range(_CHUNK_TOKENS, len(source), _CHUNK_TOKENS):
            yield source[start : min(start + _CHUNK_TOKENS, len(source))]


def _receive(pipe: IO[bytes]) -> np.ndarray | None:
    """The inverse of `_send` for one text."""
    chunks: list[np.ndarray] = []
    while not isinstance(chunk := pickle.load(pipe), _End):
        chunks.append(chunk)
    return np.concatenate(chunks) if chunks else None


def main() -> None:
    """The program of the process."""
    output = sys.stdout.buffer
    try:
        job = pickle.load(sys.stdin.buffer)
        ids, validation_ids, loss_mask = (_receive(sys.stdin.buffer) for _ in range(3))
        assert ids is not None
        assert validation_ids is not None
        threading.Thread(target=_exit_with_parent, daemon=True).start()
        for result in job.results(ids, Tokens(validation_ids, loss_mask)):
            pickle.dump(result, output, protocol=pickle.HIGHEST_PROTOCOL)
            output.flush()
        pickle.dump(_End(), output)
    except Exception as error:  # raised in the process that trains
        error.add_note(traceback.format_exc())
        pickle.dump(error, output)
    output.flush()


def _exit_with_parent() -> None:
    """Ends this process once its input is closed."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)

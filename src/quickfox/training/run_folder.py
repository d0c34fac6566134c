"""The folder of a new run: made, locked, and taken away again where no run comes of it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quickfox.durable import sweep_temporaries
from quickfox.runs import RUN_FILE, RUNS_FOLDER, TOKENS_FILE, make_run_directory, new_run_directory
from quickfox.text.token_store import remove_tokens
from quickfox.training.run_lock import locked
from quickfox.training.run_text import TOKENIZER_FILE


def make_directory(output: Path | None, name: str) -> tuple[Path, list[Path]]:
    """The run's folder, and all folders that had to be made for it, the innermost first."""
    goal = Path(RUNS_FOLDER) if output is None else output
    missing = [folder for folder in (goal, *goal.parents) if not folder.exists()]
    if output is None:
        directory = new_run_directory(name)
        return directory, [directory, *missing]
    make_run_directory(output)
    return output, missing


@contextmanager
def new_run(directory: Path, made: list[Path]) -> Iterator[None]:
    """Locks the folder of a new run; if there is no record after the block to resume it by, removes what was made.

    Args:
        directory: the folder.
        made: the folders that were not there before, the innermost first.

    Raises: as `locked`.
    """
    record = directory / RUN_FILE
    try:
        with locked(directory):
            sweep_temporaries(directory)
            try:
                yield
            finally:
                if not record.exists():
                    remove_tokens(directory / TOKENS_FILE)
                    (directory / TOKENIZER_FILE).unlink(missing_ok=True)
    finally:
        if not record.exists():
            with suppress(OSError):  # somebody else's file is in it; the first failure is the one to tell
                for folder in made:
                    folder.rmdir()

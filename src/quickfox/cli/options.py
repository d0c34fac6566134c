"""Options and arguments that several commands share, and how their values are read."""

import os
from typing import Annotated

import typer

CorpusArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS...",
        help="Text files, folders (every *.txt in them), globs, or - for standard input; UTF-8; .gz is unpacked.",
        show_default=False,
    ),
]

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="A run, a checkpoint or a model directory. Default: $LLM_MODEL, else the newest run under ./runs.",
        show_default=False,
    ),
]

StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Refuse characters that the model does not know, instead of leaving them out."),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]

ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="Processor threads to use.", show_default=False),
]

_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def pin_numpy_threads(threads: int) -> None:
    """Gives NumPy's matrix products so many threads; to be called before NumPy is imported for the first time.

    One is what sampling wants: its products are so small that a second thread, which must be woken for each, made
    drawing characters up to 14 times slower.
    """
    os.environ.update(dict.fromkeys(_BLAS_VARIABLES, str(threads)))

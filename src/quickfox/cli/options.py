"""Options and arguments that several commands share, and how their values are read."""

from typing import Annotated

import typer

CorpusArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS...",
        help="Text files, folders (every *.txt in them), globs, or - for standard input; UTF-8; .gz is unpacked; "
        "*.jsonl is JSON lines of texts that end.",
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

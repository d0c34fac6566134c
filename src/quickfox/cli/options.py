"""Options and arguments that several commands share, and how their values are read."""

from typing import Annotated, Any

import typer

from quickfox.errors import UsageError

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


def _option(name: str, metavar: str, help: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


Length = Annotated[int | None, _option("--length", "N", "How many new tokens to draw at most. Default: 500.")]
Temperature = Annotated[
    float | None,
    _option(
        "--temperature",
        "T",
        "0: always the likeliest token; below 1: safer; above 1: wilder. Default: the model's own, else 1.",
    ),
]
TopK = Annotated[int | None, _option("--top-k", "K", "Draw among the K likeliest tokens only. Default: all.")]
TopP = Annotated[
    float | None, _option("--top-p", "P", "Among the likeliest that have the probability P together. Default: 1.")
]
MinP = Annotated[
    float | None, _option("--min-p", "P", "Among those at least P times as probable as the likeliest. Default: 0.")
]
TypicalP = Annotated[
    float | None, _option("--typical-p", "P", "Among the most typical that have the probability P. Default: 1.")
]
RepetitionPenalty = Annotated[
    float | None,
    _option("--repetition-penalty", "X", "Above 1: makes what was said less likely again. Default: 1."),
]
PresencePenalty = Annotated[
    float | None, _option("--presence-penalty", "X", "Subtracted from the logit of what was said. Default: 0.")
]
FrequencyPenalty = Annotated[
    float | None, _option("--frequency-penalty", "X", "Subtracted for each time that it was said. Default: 0.")
]
PenaltyWindow = Annotated[
    int | None, _option("--penalty-window", "N", "The penalties look back N tokens. Default: 64.")
]
NoRepeatNgram = Annotated[
    int | None, _option("--no-repeat-ngram", "N", "No sequence of N tokens comes twice. Default: any may.")
]
LogitBias = Annotated[
    list[str] | None,
    _option("--logit-bias", "TEXT=X", "Adds X to the logit of a token, -inf to ban it; may be repeated."),
]
Stop = Annotated[
    list[str] | None,
    _option("--stop", "TEXT", "End the text before the first TEXT in it; may be repeated."),
]
MaxSeconds = Annotated[float | None, _option("--max-seconds", "S", "End after so much time. Default: no limit.")]
RandomSeed = Annotated[
    int | None, _option("--random-seed", "N", "Repeats the draws of an earlier call. Default: drawn and shown.")
]
NumSamples = Annotated[int | None, _option("--num-samples", "N", "How many texts to give. Default: 1.")]
BestOf = Annotated[
    int | None, _option("--best-of", "N", "Draw N texts, give those that the model finds most probable.")
]
NumBeams = Annotated[
    int | None,
    _option("--num-beams", "N", "Draw nothing: search for the most probable text, N beams wide. Default: 1, off."),
]
Logprobs = Annotated[
    int | None,
    _option("--logprobs", "N", "With --json: each token's log-probability, and those of the N likeliest."),
]


def parse_logit_bias(texts: list[str]) -> tuple[tuple[str, float], ...]:
    """`e=-2` -> ("e", -2.0), for each.

    Raises:
        UsageError: there is no `=`, or no number after the last.
    """
    pairs = []
    for text in texts:
        token, equals, number = text.rpartition("=")
        try:
            pairs.append((token, float(number)))
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"logit-bias must be TEXT=X, such as e=-2, not {text!r}")
    return tuple(pairs)

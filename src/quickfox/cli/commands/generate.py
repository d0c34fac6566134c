"""`llm generate`: continue a text, sampled by the NumPy runtime and shown token by token."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quickfox.cli.options import JsonOption, load_selected_model, model_option, option, options_from
from quickfox.cli.streams import format_error, notify, stream_output
from quickfox.config.sampling import SamplingConfig, describe_inactive, describe_unreachable_stops
from quickfox.config.schema import Group, exclusive_error
from quickfox.errors import DataError, UsageError
from quickfox.system.threads import choose_threads, pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.cli.generation_output import SampleFormatter
    from quickfox.cli.inputs import PromptLine
    from quickfox.generation.prompt import Prompt, Unknown
    from quickfox.media.signals import Decoded
    from quickfox.model import Model

EXAMPLES = """\b
Examples:
  llm generate --seed "The quick brown fox"
  llm generate --model runs/corpus --length 2000 --temperature 0.7 > story.txt
  echo "ROMEO:" | llm generate --top-k 10 | head -20
  llm generate --num-samples 3 --json | jq -r .text
  llm generate --prompts questions.jsonl --stop $'\\n' > answers.jsonl
  arecord -d 3 | llm generate --audio -
  llm generate --seed "Once" --novelty corpus.txt --max-copy 40"""


PROMPT: Group = "Prompt"
SeedOption = Annotated[
    str | None,
    option(
        "--seed --prompt", "Text to continue. Default: standard input, unless it is a terminal.", PROMPT, metavar="TEXT"
    ),
]
SeedFileOption = Annotated[
    Path | None, option("--seed-file", "File with the text to continue.", PROMPT, metavar="FILE")
]
PromptsOption = Annotated[
    str | None,
    option(
        "--prompts",
        "Texts to continue, one per line, or JSON lines of strings or of objects with a prompt, its own settings and "
        "an id; - is standard input. The output is JSON lines.",
        PROMPT,
        metavar="FILE",
    ),
]
AudioOption = Annotated[
    str | None,
    option("--audio", "Sound file before the text, for a model of sound; - is standard input.", PROMPT, metavar="FILE"),
]
ImageOption = Annotated[
    str | None,
    option("--image", "Picture before the text, for a model of pictures; - is standard input.", PROMPT, metavar="FILE"),
]
InteractiveOption = Annotated[bool, option("--interactive", "Read one prompt after another from the terminal.", PROMPT)]
UnknownOption = Annotated[
    Literal["fold", "skip", "error"],
    option(
        "--unknown",
        "Prompt characters unknown to the model: replace them by similar known ones (fold), omit them (skip) or "
        "refuse the prompt (error). Default: fold.",
        PROMPT,
        metavar="fold|skip|error",
    ),
]
ThreadsOption = Annotated[
    int | None,
    option(
        "--threads",
        "Processor threads for many texts at a time; a single text uses one. Default: all that are available.",
        "Sampling",
        metavar="N",
        min=1,
    ),
]
NoveltyOption = Annotated[
    list[str] | None,
    option(
        "--novelty", "Report the longest passage of each text that is copied from CORPUS; repeatable.", metavar="CORPUS"
    ),
]
MaxCopyOption = Annotated[
    int | None,
    option(
        "--max-copy",
        "Maximum number of consecutive characters copied from the corpus of --novelty. Default: no limit.",
        "Sampling",
        metavar="N",
        min=0,
    ),
]
ColorOption = Annotated[bool, option("--color", "Color each character by its probability.")]
NoEchoOption = Annotated[bool, option("--no-echo", "Omit the prompt from the output.")]


@options_from(SamplingConfig)
def run(
    context: typer.Context,
    *,
    model: Annotated[str | None, model_option(PROMPT)] = None,
    seed: SeedOption = None,
    seed_file: SeedFileOption = None,
    prompts: PromptsOption = None,
    audio: AudioOption = None,
    image: ImageOption = None,
    interactive: InteractiveOption = False,
    unknown: UnknownOption = "fold",
    max_copy: MaxCopyOption = None,
    threads: ThreadsOption = None,
    novelty: NoveltyOption = None,
    color: ColorOption = False,
    no_echo: NoEchoOption = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Continue a text with a trained model. Prints the prompt and its continuation, token by token.

    Logits are processed in this order: bias, penalties, n-grams, temperature, top-k, top-p, min-p, typical-p.
    """
    _check_combination(context.params)
    SamplingConfig(**settings)  # checks them before NumPy is imported
    pin_numpy_threads(1)  # batches are sampled by threads of our own
    from quickfox.cli.generation_output import SampleFormatter
    from quickfox.cli.inputs import warn_of_unread_input

    loaded = dataclasses.replace(load_selected_model(model), threads=choose_threads(threads, notify))
    _warn_of_inactive(loaded, settings)
    formatter = SampleFormatter(
        loaded,
        novelty,
        max_copy,
        echo=not (no_echo or interactive),
        as_json=as_json or prompts is not None,
        in_color=color,
    )
    given = next((name for name in ("seed", "seed_file", "prompts") if context.params[name] not in (None, "-")), None)
    if given is not None and not interactive:
        warn_of_unread_input(f"--{given.replace('_', '-')}")
    if interactive:
        _continue_lines(loaded, seed, settings, formatter, unknown, echo=not no_echo)
    elif prompts is not None:
        _continue_file(loaded, prompts, settings, formatter, unknown)
    else:
        signal = _read_signal(loaded, audio, image)
        text = _read_seed(seed if signal is None else seed or "", seed_file)
        _continue_text(loaded, text, settings, formatter, unknown, signal)


def _check_combination(params: dict[str, Any]) -> None:
    """Raises UsageError if options exclude each other."""
    sources = [name for name in ("seed", "seed_file", "prompts", "interactive") if params[name] not in (None, False)]
    if len(sources) > 1 and sources != ["seed", "interactive"]:
        raise exclusive_error(*sources[:2])
    for kind in ("audio", "image"):
        others = [name for name in ("prompts", "interactive") if params[kind] is not None and params[name]]
        if others:
            raise exclusive_error(kind, others[0])
    if params["audio"] is not None and params["image"] is not None:
        raise exclusive_error("audio", "image")
    if params["color"] and (params["as_json"] or params["prompts"]):
        raise exclusive_error("color", "json" if params["as_json"] else "prompts")
    if params["interactive"] and params["as_json"]:
        raise exclusive_error("interactive", "json")
    if params["max_copy"] is not None and not params["novelty"]:
        raise UsageError("--max-copy needs the corpus that must not be copied: give it by --novelty CORPUS")
    if params["logprobs"] is not None and not (params["as_json"] or params["prompts"]):
        raise UsageError("--logprobs needs --json: plain text has no place for log-probabilities")


def _warn_of_inactive(model: "Model", settings: dict[str, Any]) -> None:
    """Says which of the given settings have no effect."""
    config = model.sampling_config(**settings)
    known = model.bundle.tokenizer.known_characters
    for error in (*describe_inactive(config, settings), *describe_unreachable_stops(config, known)):
        notify(f"warning: {format_error(error)}")


def _continue_lines(
    model: "Model",
    seed: str | None,
    settings: dict[str, Any],
    formatter: "SampleFormatter",
    unknown: "Unknown",
    *,
    echo: bool,
) -> None:
    from quickfox.cli.repl.loop import run_prompt_loop
    from quickfox.generation.prompt import read_input

    read_input(model.media)  # a model of signals continues no text alone
    config = model.sampling_config(**settings)
    if "random_seed" not in settings:
        notify(f"random seed: {config.random_seed}")
    run_prompt_loop(model, config, formatter, unknown, seed=seed, echo=echo)


def _continue_text(
    model: "Model",
    text: str,
    settings: dict[str, Any],
    formatter: "SampleFormatter",
    unknown: "Unknown",
    signal: "Decoded | None" = None,
) -> None:
    prompt = model.read_prompt(text, unknown, signal)
    if prompt.warning:
        notify(f"warning: {prompt.warning}")
    config = model.sampling_config(**settings)
    if "random_seed" not in settings and config.temperature > 0 and config.num_beams == 1:
        notify(f"random seed: {config.random_seed}")
    stream_output(formatter.format_samples(prompt, config))


def _read_signal(model: "Model", audio: str | None, image: str | None) -> "Decoded | None":
    """The sound or picture before the text; None: the model reads text only."""
    if model.media is None and audio is None and image is None:
        return None
    from quickfox.cli.inputs import open_signal
    from quickfox.generation.prompt import read_input

    return read_input(model.media, *(open_signal(name) for name in (audio, image)))


def _read_seed(seed: str | None, seed_file: Path | None) -> str:
    from quickfox.cli.inputs import read_seed_file, read_standard_input

    if seed_file is not None:
        return read_seed_file(seed_file)
    if seed is None:
        return read_standard_input()
    if seed.strip().isdecimal():
        notify(f"--seed {seed} is taken as the text to continue; the seed of the random numbers is --random-seed")
    return seed


def _continue_file(
    model: "Model", name: str, settings: dict[str, Any], formatter: "SampleFormatter", unknown: "Unknown"
) -> None:
    """Continues the prompts of a file, in order.

    Raises:
        DataError: after the last line, if any was invalid; each of these is reported when it is read.
    """
    from quickfox.cli.inputs import iter_prompt_lines, open_prompts
    from quickfox.generation.prompt import describe_prompt_changes

    refused = 0
    transliterated: Counter[tuple[str, str]] = Counter()
    unknown_counts: Counter[str] = Counter()
    with open_prompts(name) as (file, shown_name):
        for line in iter_prompt_lines(file, shown_name):
            try:
                if isinstance(line, DataError):
                    raise line
                where = f"{shown_name} line {line.number}"
                prompt = _continue_line(model, line, where, settings, formatter, unknown)
            except DataError as error:
                refused += 1
                notify(str(error))
            else:
                transliterated += prompt.transliterated
                unknown_counts += prompt.unknown
    if warning := describe_prompt_changes(transliterated, unknown_counts):
        notify(f"warning: {warning}")
    if refused:
        raise DataError(f"{shown_name}: {refused:,} prompts could not be continued, see above")


def _continue_line(
    model: "Model",
    line: "PromptLine",
    where: str,
    settings: dict[str, Any],
    formatter: "SampleFormatter",
    unknown: "Unknown",
) -> "Prompt":
    from quickfox.generation.prompt import read_named_signal

    try:
        config = model.override_config(model.sampling_config(**settings), line.options, where)
        signal = read_named_signal(model.media, line.signal)
        prompt = model.read_prompt(line.text, unknown, signal)
        stream_output(formatter.format_samples(prompt, config, {"line": line.number, **line.labels}))
    except UsageError as error:
        raise DataError(f"{where}: {error}") from None
    return prompt

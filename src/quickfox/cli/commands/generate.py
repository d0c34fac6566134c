"""`llm generate`: continue a text, drawn by the NumPy runtime, shown as it is drawn."""

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quickfox.cli import options as sampling
from quickfox.cli.options import JsonOption, ModelOption, ThreadsOption
from quickfox.cli.streams import notify, stream_product
from quickfox.errors import DataError, UsageError
from quickfox.system.threads import available_threads, pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.cli.generation_output import Presentation
    from quickfox.cli.inputs import PromptLine
    from quickfox.model import Model, Prompt, Unknown

EXAMPLES = """\b
Examples:
  llm generate --seed "The quick brown fox"
  llm generate --model runs/corpus --length 2000 --temperature 0.7 > story.txt
  echo "ROMEO:" | llm generate --top-k 10 | head -20
  llm generate --num-samples 3 --json | jq -r .text
  llm generate --prompts questions.jsonl --stop $'\\n' > answers.jsonl
  llm generate --seed "Once" --novelty corpus.txt --max-copy 40"""


def run(
    context: typer.Context,
    seed: Annotated[
        str | None,
        typer.Option(
            "--seed",
            "--prompt",
            metavar="TEXT",
            help="The text to continue. Default: standard input, if it is not a terminal.",
            show_default=False,
        ),
    ] = None,
    seed_file: Annotated[
        Path | None,
        typer.Option("--seed-file", metavar="FILE", help="Continue the text in FILE.", show_default=False),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Continue many texts: a JSON text a line, or an object of prompt and options of its own. -: standard "
            "input. Answers are JSON, a line each.",
            show_default=False,
        ),
    ] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask for one prompt after the other.")] = False,
    model: ModelOption = None,
    length: sampling.Length = None,
    temperature: sampling.Temperature = None,
    top_k: sampling.TopK = None,
    top_p: sampling.TopP = None,
    min_p: sampling.MinP = None,
    typical_p: sampling.TypicalP = None,
    repetition_penalty: sampling.RepetitionPenalty = None,
    presence_penalty: sampling.PresencePenalty = None,
    frequency_penalty: sampling.FrequencyPenalty = None,
    penalty_window: sampling.PenaltyWindow = None,
    no_repeat_ngram: sampling.NoRepeatNgram = None,
    logit_bias: sampling.LogitBias = None,
    stop: sampling.Stop = None,
    max_seconds: sampling.MaxSeconds = None,
    random_seed: sampling.RandomSeed = None,
    num_samples: sampling.NumSamples = None,
    best_of: sampling.BestOf = None,
    num_beams: sampling.NumBeams = None,
    logprobs: sampling.Logprobs = None,
    novelty: Annotated[
        list[str] | None,
        typer.Option(
            "--novelty",
            metavar="CORPUS",
            help="Tell the longest stretch of each text that is copied from CORPUS; may be repeated.",
            show_default=False,
        ),
    ] = None,
    max_copy: Annotated[
        int | None,
        typer.Option(
            "--max-copy",
            metavar="N",
            min=0,
            help="Never copy more than N characters in a row from the corpus given by --novelty.",
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        Literal["fold", "skip", "error"],
        typer.Option(
            "--unknown", help="Of a seed's characters that the model does not know: write others, or leave out."
        ),
    ] = "fold",
    color: Annotated[bool, typer.Option("--color", help="Shade each character by its probability.")] = False,
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Leave the seed out of the output.")] = False,
    as_json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Continue a text with a trained model. Prints the seed and what the model writes next, as it is drawn.

    Logits are processed in this order: bias, penalties, n-grams, temperature, top-k, top-p, min-p, typical-p.
    """
    _refuse_contradictions(context.params)
    options = _sampling_options(context.params)
    side_by_side = max(value or 1 for value in (num_samples, best_of, num_beams))
    pin_numpy_threads(threads or threads_for(side_by_side))
    from quickfox.checkpoints.run_directory import find_model
    from quickfox.cli.generation_output import Presentation
    from quickfox.config.sampling import SamplingConfig
    from quickfox.model import load_directory

    SamplingConfig(**options)  # refuses a wrong value before anything is read
    directory, note = find_model(model, os.environ, Path())
    if note:
        notify(note)
    loaded = load_directory(directory)
    if interactive:
        from quickfox.cli.repl.loop import RecordedModel, run_prompt_loop

        recorded = RecordedModel(loaded.path, loaded.bundle)
        presentation = Presentation(recorded, novelty, max_copy, echo=False, as_json=False, in_colour=color)
        config = loaded.sampling_config(**options)
        if random_seed is None:
            notify(f"random seed: {config.random_seed}")
        run_prompt_loop(recorded, config, presentation, unknown, seed=seed, echo=not no_echo)
        return
    presentation = Presentation(
        loaded, novelty, max_copy, echo=not no_echo, as_json=as_json or prompts is not None, in_colour=color
    )
    if prompts is not None:
        _answer(loaded, prompts, options, presentation, unknown)
    else:
        text = _seed_text(seed, seed_file)
        prompt = loaded.read_prompt(text, unknown)
        if prompt.warning:
            notify(f"warning: {prompt.warning}")
        config = loaded.sampling_config(**options)
        if random_seed is None and config.temperature > 0 and config.num_beams == 1:
            notify(f"random seed: {config.random_seed}")
        stream_product(presentation.show(prompt, config))


BATCH_OF_THREADS = 8
"""From so many texts side by side on, their matrix products gain from all processor threads."""


def threads_for(side_by_side: int) -> int:
    """Threads for NumPy's products; to be asked before NumPy is imported."""
    return available_threads() if side_by_side >= BATCH_OF_THREADS else 1


def _refuse_contradictions(params: dict[str, Any]) -> None:
    """Raises UsageError if options exclude each other."""
    sources = [name for name in ("seed", "seed_file", "prompts", "interactive") if params[name] not in (None, False)]
    if len(sources) > 1 and sources != ["seed", "interactive"]:
        raise _exclusive(*sources[:2])
    if params["color"] and (params["as_json"] or params["prompts"]):
        raise _exclusive("color", "json" if params["as_json"] else "prompts")
    if params["interactive"] and params["as_json"]:
        raise _exclusive("interactive", "json")
    if params["max_copy"] is not None and not params["novelty"]:
        raise UsageError("--max-copy needs the corpus that must not be copied: give it by --novelty CORPUS")
    if params["logprobs"] is not None and not (params["as_json"] or params["prompts"]):
        raise UsageError("--logprobs needs --json: log-probabilities are no text")


def _exclusive(first: str, second: str) -> UsageError:
    names = (f"--{name.replace('_', '-')}" for name in (first, second))
    return UsageError(f"{' and '.join(names)} exclude each other: give one")


def _sampling_options(params: dict[str, Any]) -> dict[str, Any]:
    """The fields of SamplingConfig that were given."""
    from quickfox.config.sampling import SamplingConfig

    names = {field.name for field in dataclasses.fields(SamplingConfig)}
    options = {name: value for name, value in params.items() if name in names and value is not None}
    if "logit_bias" in options:
        options["logit_bias"] = sampling.parse_logit_bias(options["logit_bias"])
    if "stop" in options:
        options["stop"] = tuple(options["stop"])
    return options


def _seed_text(seed: str | None, seed_file: Path | None) -> str:
    from quickfox.cli.inputs import read_seed_file, read_standard_input

    if seed_file is not None:
        return read_seed_file(seed_file)
    if seed is None:
        return read_standard_input()
    if seed.strip().isdecimal():
        notify(f"--seed {seed} is taken as the text to continue; the seed of the random numbers is --random-seed")
    return seed


def _answer(
    model: "Model", name: str, options: dict[str, Any], presentation: "Presentation", unknown: "Unknown"
) -> None:
    """Continues the prompts of a file, in order.

    Raises:
        DataError: at the end, if a line was no prompt; each was told of when it came.
    """
    from quickfox.cli.inputs import iter_prompt_lines, open_prompts
    from quickfox.model import describe_changes

    refused = 0
    transliterated: Counter[tuple[str, str]] = Counter()
    unknown_counts: Counter[str] = Counter()
    with open_prompts(name) as (file, shown_name):
        for line in iter_prompt_lines(file, shown_name):
            try:
                if isinstance(line, DataError):
                    raise line
                where = f"{shown_name} line {line.number}"
                prompt = _answer_line(model, line, where, options, presentation, unknown)
            except DataError as error:
                refused += 1
                notify(str(error))
            else:
                transliterated += prompt.transliterated
                unknown_counts += prompt.unknown
    if warning := describe_changes(transliterated, unknown_counts):
        notify(f"warning: {warning}")
    if refused:
        raise DataError(f"{shown_name}: {refused:,} of its prompts could not be answered, see above")


def _answer_line(
    model: "Model",
    line: "PromptLine",
    where: str,
    options: dict[str, Any],
    presentation: "Presentation",
    unknown: "Unknown",
) -> "Prompt":
    try:
        config = model.overridden(model.sampling_config(**options), line.options, where)
        prompt = model.read_prompt(line.text, unknown)
        stream_product(presentation.show(prompt, config, line.number))
    except UsageError as error:
        raise DataError(f"{where}: {error}") from None
    return prompt

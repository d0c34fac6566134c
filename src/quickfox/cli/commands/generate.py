"""`llm generate`: continue a text, drawn by the NumPy runtime, shown as it is drawn."""

import codecs
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickfox.cli.options import JsonOption, ModelOption, StrictOption, ThreadsOption, pin_numpy_threads
from quickfox.cli.streams import notify, write_live, write_product
from quickfox.errors import DataError, StorageError

if TYPE_CHECKING:
    from quickfox.api import Model, Prompt
    from quickfox.config import SamplingConfig

NAME = "generate"

EXAMPLES = """\b
Examples:
  llm generate --seed "The quick brown fox"
  llm generate --model runs/corpus --length 2000 --temperature 0.7 > story.txt
  echo "ROMEO:" | llm generate --top-k 10 | head -20
  llm generate --num-samples 3 --json | jq -r .text"""

SAMPLE_SEPARATOR = "---\n"


def run(
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
    model: ModelOption = None,
    length: Annotated[
        int | None,
        typer.Option("--length", metavar="N", help="How many new tokens to draw. Default: 500.", show_default=False),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            metavar="T",
            help="0: always the likeliest token; below 1: safer; above 1: wilder. Default: the model's own, else 1.",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", metavar="K", help="Draw among the K likeliest tokens only. Default: all.", show_default=False
        ),
    ] = None,
    random_seed: Annotated[
        int | None,
        typer.Option(
            "--random-seed",
            metavar="N",
            help="Repeats the draws of an earlier call. Default: drawn and shown.",
            show_default=False,
        ),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option("--num-samples", metavar="N", help="How many texts to draw. Default: 1.", show_default=False),
    ] = None,
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Leave the seed out of the output.")] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Continue a text with a trained model. Prints the seed and what the model writes next, as it is drawn."""
    pin_numpy_threads(threads or 1)
    from quickfox.api import describe_left_out, load_directory
    from quickfox.config import SamplingConfig
    from quickfox.runs import find_model

    given: dict[str, Any] = {
        "length": length,
        "temperature": temperature,
        "top_k": top_k,
        "random_seed": random_seed,
        "num_samples": num_samples,
    }
    options = {name: value for name, value in given.items() if value is not None}
    SamplingConfig(**options)  # refuses a wrong value before anything is read
    directory, note = find_model(model, os.environ, Path())
    if note:
        notify(note)
    loaded = load_directory(directory)
    config = loaded.sampling_config(**options)
    if seed is None:
        seed = _read_standard_input()
    elif seed.strip().isdecimal():
        notify(f"--seed {seed} is taken as the text to continue; the seed of the random numbers is --random-seed")
    prompt = loaded.read_prompt(seed, strict=strict)
    if prompt.unknown:
        notify(f"warning: {describe_left_out(prompt.unknown)}")
    if random_seed is None and config.temperature > 0:
        notify(f"random seed: {config.random_seed}")
    if as_json:
        _print_json(loaded, prompt, config, echo=not no_echo)
    else:
        _print_text(loaded, prompt, config, echo=not no_echo)


def _read_standard_input() -> str:
    """What is piped to us, less one line end at its end, which `echo` adds; nothing if a person would have to type.

    Raises:
        DataError: it is not UTF-8.
        StorageError: reading failed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        text = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise StorageError(f"cannot read standard input: {error.strerror or error}") from error
    return re.sub(r"\r?\n\Z", "", text)


def _print_text(model: "Model", prompt: "Prompt", config: "SamplingConfig", *, echo: bool) -> None:
    for sample in range(config.num_samples):
        if sample > 0:
            write_product(SAMPLE_SEPARATOR)
        if echo:
            write_product(prompt.text)
        write_live(model.stream(prompt, config, sample))
        write_product("\n")


def _print_json(model: "Model", prompt: "Prompt", config: "SamplingConfig", *, echo: bool) -> None:
    for sample in range(config.num_samples):
        pieces = list(model.stream(prompt, config, sample))
        line = {
            "seed": prompt.text,
            "text": (prompt.text if echo else "") + "".join(pieces),
            "tokens": len(pieces),
            "finish_reason": "length",  # nothing else ends a text yet
            "random_seed": config.random_seed,
            "sample": sample,
            "model": str(model.path),
        }
        write_live([json.dumps(line, ensure_ascii=False) + "\n"])

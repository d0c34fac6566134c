"""`llm evaluate`: loss, perplexity and bits per character and byte of a model on a text."""

import dataclasses
import json
import math
from collections import Counter

from quickfox.cli.formatting import format_table
from quickfox.cli.options import (
    CorpusArgument,
    JsonOption,
    ModelOption,
    StrictOption,
    ThreadsOption,
    load_selected_model,
)
from quickfox.cli.streams import notify, write_output
from quickfox.system.threads import available_threads, pin_numpy_threads

EXAMPLES = """\b
Examples:
  llm evaluate new.txt
  llm evaluate chapters/ --model runs/corpus --json | jq .perplexity"""


def run(
    corpus: CorpusArgument,
    model: ModelOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Measure the loss, perplexity and bits per character and byte of a model on a text; lower is better."""
    pin_numpy_threads(1)  # segments are processed by threads of our own
    from quickfox.model import describe_unknown_characters
    from quickfox.text.corpus import open_corpus

    loaded = dataclasses.replace(load_selected_model(model), threads=threads or available_threads())
    unknown: Counter[str] = Counter()
    evaluation = loaded.evaluate_corpus(open_corpus(corpus, notify), None if strict else unknown)
    if unknown:
        notify(f"warning: {describe_unknown_characters(unknown)}")
    values = dataclasses.asdict(evaluation)
    if as_json:  # infinity, which JSON does not have, is null
        values = {name: None if value == math.inf else value for name, value in values.items()}
        write_output(json.dumps(values) + "\n")
    else:
        write_output(format_table((name.replace("_", " "), _format_value(value)) for name, value in values.items()))


def _format_value(value: float | None) -> str:
    if value is None:
        return "not available"  # the standard error of too few tokens
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"

"""`llm evaluate`: loss, perplexity and bits per character and byte of a model on a text."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from quickfox.cli.formatting import format_table
from quickfox.cli.options import (
    CorpusArgument,
    JsonOption,
    ModelOption,
    StrictOption,
    ThreadsOption,
    load_selected_model,
    option,
    with_corpus_options,
)
from quickfox.cli.streams import notify, write_output
from quickfox.config.corpus import CorpusOptions
from quickfox.config.schema import exclusive_error
from quickfox.errors import UsageError
from quickfox.system.threads import choose_threads, pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.evaluation.bootstrap import Comparison, Estimate
    from quickfox.evaluation.completions import Counts
    from quickfox.model import Model
    from quickfox.text.corpus import Corpus
    from quickfox.text.documents import Document

EXAMPLES = """\b
Examples:
  llm evaluate new.txt
  llm evaluate chapters/ --model runs/corpus --json | jq .perplexity
  llm evaluate questions.jsonl  # prompts with completions: exact match, error rates and chrF too
  llm evaluate spoken.jsonl --control  # recordings with their texts, see docs/media.md
  llm evaluate new.txt --compare runs/first runs/second"""


@with_corpus_options
def run(
    corpus: CorpusArgument,
    *,
    corpus_options: CorpusOptions,
    model: ModelOption = None,
    compare: Annotated[
        tuple[str, str] | None,
        option("--compare", "Two runs or models, in place of --model: show what differs.", metavar="RUN RUN"),
    ] = None,
    control: Annotated[
        bool,
        option("--control", "Measure too with the signals exchanged: what the texts alone give away."),
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Measure the loss, perplexity and bits per character and byte of a model on a text; lower is better.

    Of prompts with completions, the most probable completions are generated too and compared with those of the text:
    exact match, character and word error rate and chrF, each with its 95 % confidence interval.
    """
    pin_numpy_threads(1)  # segments are processed by threads of our own
    from quickfox.generation.prompt import describe_unknown_characters
    from quickfox.text.corpus import open_corpus

    if compare and model is not None:
        raise exclusive_error("compare", "model")
    if compare and control:
        raise exclusive_error("compare", "control")
    threads = choose_threads(threads, notify)
    if compare:
        opened = open_corpus(corpus, notify, options=corpus_options)
        _show_comparisons(compare, _compare(compare, opened, threads, strict=strict), as_json=as_json)
        return
    loaded = dataclasses.replace(load_selected_model(model), threads=threads)
    opened = open_corpus(corpus, notify, options=corpus_options)
    unknown: Counter[str] = Counter()
    evaluation = loaded.evaluate_corpus(opened, None if strict else unknown)
    estimates = _estimate_completions(loaded, opened)
    control_values, control_estimates = _measure_control(loaded, opened) if control else ({}, {})
    if unknown:
        notify(f"warning: {describe_unknown_characters(unknown, loaded.bundle.tokenizer.unknown_token)}")
    values = dataclasses.asdict(evaluation) | control_values
    estimates |= control_estimates
    if as_json:  # infinity, which JSON does not have, is null
        values = {name: None if value == math.inf else value for name, value in values.items()}
        for name, estimate in estimates.items():
            values |= {name: estimate.value, f"{name}_interval": estimate.interval}
        write_output(json.dumps(values) + "\n")
    else:
        rows = {name: _format_value(value) for name, value in values.items()}
        rows |= {name: _format_estimate(estimate) for name, estimate in estimates.items()}
        write_output(format_table((name.replace("_", " "), value) for name, value in rows.items()))


def _estimate_completions(model: "Model", corpus: "Corpus") -> dict[str, "Estimate"]:
    """The measures of the generated completions; empty for a corpus without prompts."""
    from quickfox.evaluation.bootstrap import estimate
    from quickfox.evaluation.completions import measure

    counts = _count_completions(model, corpus)
    return estimate(counts, measure) if len(counts) else {}


def _measure_control(model: "Model", corpus: "Corpus") -> tuple[dict[str, float], dict[str, "Estimate"]]:
    """The loss and the measures of the generated completions, with the signals exchanged between the documents."""
    from quickfox.evaluation.bootstrap import estimate
    from quickfox.evaluation.completions import measure
    from quickfox.evaluation.signals import exchange_signals

    if corpus.media_kind is None:
        raise UsageError("control exchanges sound or pictures, and the text has none", "control")
    exchanged = list(exchange_signals(corpus.iter_documents()))
    evaluation = model.evaluate_documents(exchanged, Counter())
    estimates = estimate(_count_completions(model, corpus, exchanged), measure)
    named = {f"control_{name}": each for name, each in estimates.items()}
    return {"control_nats_per_token": evaluation.nats_per_token}, named


def _count_completions(model: "Model", corpus: "Corpus", documents: "Sequence[Document] | None" = None) -> "Counts":
    """The counts of the generated completions of a corpus, or of `documents` in its place."""
    from quickfox.evaluation.completions import count_all_matches, generate_completions

    if not corpus.has_documents:
        return count_all_matches([])
    documents_or_all = corpus.iter_documents() if documents is None else documents
    return count_all_matches(
        generate_completions(model.bind, model.bundle.tokenizer, documents_or_all, Counter(), model.media)
    )


def _compare(names: Sequence[str], corpus: "Corpus", threads: int, *, strict: bool) -> dict[str, "Comparison"]:
    """The loss, and the measures of the generated completions, of two models on the same text."""
    from quickfox.data.encoding import encode_corpus_chunks
    from quickfox.evaluation.bootstrap import compare
    from quickfox.evaluation.comparison import bits_per_byte, block_losses
    from quickfox.evaluation.completions import measure
    from quickfox.generation.prompt import describe_unknown_characters

    losses, counts = [], []
    for name in names:
        model = dataclasses.replace(load_selected_model(name), threads=threads)
        unknown: Counter[str] = Counter()
        chunks = encode_corpus_chunks(corpus, model.bundle.tokenizer, None if strict else unknown)
        losses.append(block_losses(model.language_model, model.bundle.tokenizer, chunks))
        counts.append(_count_completions(model, corpus))
        if unknown:
            notify(f"warning: {name}: {describe_unknown_characters(unknown, model.bundle.tokenizer.unknown_token)}")
    comparisons = compare(losses[0], losses[1], bits_per_byte)
    return comparisons | (compare(counts[0], counts[1], measure) if len(counts[0]) else {})


def _show_comparisons(names: Sequence[str], comparisons: dict[str, "Comparison"], *, as_json: bool) -> None:
    if as_json:
        members: dict[str, Any] = {"runs": list(names)}
        for name, each in comparisons.items():
            difference = {"difference": each.difference.value, "difference_interval": each.difference.interval}
            members[name] = {"first": each.first, "second": each.second, **difference}
        write_output(json.dumps(members) + "\n")
        return
    rows = [("", *names, "difference")]
    for name, each in comparisons.items():
        shown = f"{each.first:.4f}", f"{each.second:.4f}", _format_estimate(each.difference)
        rows.append((name.replace("_", " "), *shown))
    write_output(format_table(rows))


def _format_estimate(estimate: "Estimate") -> str:
    return f"{estimate.value:.4f}  95 % interval {estimate.low:.4f} to {estimate.high:.4f}"


def _format_value(value: float | None) -> str:
    if value is None:
        return "not available"  # the standard error of too few tokens
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"

"""`llm score`: the surprisal of each line or document of a text; a filter, like `grep`."""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quickfox.cli.formatting import color_by_surprisal
from quickfox.cli.options import (
    JsonOption,
    ModelOption,
    StrictOption,
    ThreadsOption,
    load_selected_model,
    option,
    with_corpus_options,
)
from quickfox.cli.streams import escape_unprintable, notify, stream_output
from quickfox.config.corpus import CorpusOptions
from quickfox.config.schema import exclusive_error
from quickfox.system.threads import choose_threads, pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.cli.score_inputs import InputText
    from quickfox.evaluation.scoring import Peak, Score
    from quickfox.model import Model

EXAMPLES = """\b
Examples:
  llm score chapter.txt | sort -rn | head
  llm score --top 10 logs/*.log
  tail -f server.log | llm score --above 3
  llm score essays/ --by document --json | jq .bits_per_character
  llm score --heat chapter.txt | less -R

\b
Tab-separated columns:
  1  bits per character
  2  perplexity per token
  3  position of the character of highest surprisal: [FILE:][DOCUMENT:]LINE:COLUMN
  4  that character
  5  its surprisal in bits
  6  the line
Columns 1, 2, 4 and 5 of an empty line are -."""

UNDEFINED = "-"


@dataclass(frozen=True)
class ScoredText:
    """A line or document with its score."""

    text: "InputText"
    score: "Score"

    @property
    def peak(self) -> "Peak | None":
        """The character of highest surprisal; None if no character is predicted."""
        from quickfox.evaluation.scoring import find_peak

        return find_peak(self.text.text, self.score, self.text.first_line)


FilesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE...]",
        help="UTF-8 text files, folders or globs; .gz is decompressed. Default: -, standard input.",
        show_default=False,
    ),
]
ByOption = Annotated[
    Literal["line", "document"], option("--by", "Score each line, or each file as one text. Default: line.")
]
AboveOption = Annotated[
    float | None,
    option(
        "--above",
        "Print only lines above X bits per character, unchanged; with --by document, file names. Default: all.",
        metavar="X",
    ),
]
BelowOption = Annotated[
    float | None, option("--below", "Print only lines below X bits per character. Default: all.", metavar="X")
]
TopOption = Annotated[
    int | None,
    option("--top", "Print only the N lines of highest surprisal, highest first. Default: all.", metavar="N", min=1),
]
HeatOption = Annotated[bool, option("--heat", "Print the text with a background color by surprisal, yellow to red.")]


@with_corpus_options
def run(
    files: FilesArgument = None,
    *,
    corpus_options: CorpusOptions,
    model: ModelOption = None,
    by: ByOption = "line",
    above: AboveOption = None,
    below: BelowOption = None,
    top: TopOption = None,
    heat: HeatOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Measure the surprisal of each line in bits per character, and its maximum.

    Each line is scored independently, as the beginning of a text. Its line end is not scored. Of JSON lines, tables and
    other documents, each document is scored.
    """
    if heat and as_json:
        raise exclusive_error("heat", "json")
    pin_numpy_threads(1)  # batches are scored in parallel by threads of our own
    from quickfox.cli.score_inputs import iter_batches, open_sources
    from quickfox.generation.prompt import describe_unknown_characters

    loaded = load_selected_model(model)
    sources = open_sources(files or ["-"], corpus_options)
    unknown: Counter[str] = Counter()
    scored = _score(loaded, iter_batches(sources, by), None if strict else unknown, choose_threads(threads, notify))
    batches = ([text for text in batch if _passes_filters(text, above, below)] for batch in scored)
    if as_json:
        format_text: Callable[[ScoredText], str] = _format_json
    elif heat:
        format_text = _format_heat
    elif above is not None or below is not None:
        format_text = _format_match
    else:
        format_text = partial(_format_row, with_files=len(sources) > 1)
    for batch in batches if top is None else [_select_top(batches, top)]:
        stream_output(["".join(map(format_text, batch))])  # flushed, because a reader of the pipe may wait for it
    if unknown:
        notify(f"warning: {describe_unknown_characters(unknown, loaded.bundle.tokenizer.unknown_token)}")


def _score(
    model: "Model", batches: Iterable[list["InputText"]], unknown: Counter[str] | None, threads: int
) -> Iterator[list[ScoredText]]:
    for batch in batches:
        if documents := [text.document for text in batch if text.document is not None]:
            after_signals = iter(model.score_documents(documents, unknown, threads=threads))
            others = iter(model.score([text.text for text in batch if text.document is None], unknown, threads=threads))
            yield [ScoredText(text, next(after_signals if text.document else others)) for text in batch]
            continue
        scores = model.score([text.text for text in batch], unknown, threads=threads)
        yield [ScoredText(text, score) for text, score in zip(batch, scores, strict=True)]


def _passes_filters(scored: ScoredText, above: float | None, below: float | None) -> bool:
    """Whether a text is within the limits; a text without a score is only if there are no limits."""
    bits = scored.score.bits_per_character
    if bits is None:
        return above is None and below is None
    return (above is None or bits > above) and (below is None or bits < below)


def _select_top(batches: Iterable[list[ScoredText]], count: int) -> list[ScoredText]:
    """The texts of the most bits per character in descending order; equal ones in the order of the input."""
    scored = (text for batch in batches for text in batch)
    ranked = ((text.score.bits_per_character, text) for text in scored if text.score.characters)
    return [text for _, text in heapq.nlargest(count, ranked, key=itemgetter(0))]


def _format_row(scored: ScoredText, *, with_files: bool) -> str:
    text, score, peak = scored.text, scored.score, scored.peak
    position = f"{text.file}:" if with_files else ""
    if text.is_document:
        position += f"{text.line}:"
    if peak is None:
        cells = [UNDEFINED, UNDEFINED, f"{position}{text.first_line}", UNDEFINED, UNDEFINED]
    else:
        cells = [f"{score.bits_per_character:.4f}", f"{score.perplexity:.4f}"]
        cells += [f"{position}{peak.line}:{peak.column}", escape_unprintable(peak.character), f"{peak.bits:.4f}"]
    if text.line is not None:
        cells.append(escape_unprintable(text.text) if text.is_document else text.text)
    return "\t".join(cells) + "\n"


def _format_json(scored: ScoredText) -> str:
    from quickfox.evaluation.scoring import describe_score

    text = scored.text
    line = {} if text.line is None else {"line": text.line, "text": text.text}
    values = {"file": text.file, **line, **describe_score(text.text, scored.score, text.first_line)}
    return json.dumps(values, ensure_ascii=False) + "\n"


def _format_heat(scored: ScoredText) -> str:
    return _end_line(color_by_surprisal(scored.text.text, scored.score.bits))


def _format_match(scored: ScoredText) -> str:
    """A line unchanged, or the name of a document."""
    text = scored.text
    return f"{text.file}\n" if text.line is None else _end_line(text.text + text.end)


def _end_line(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"

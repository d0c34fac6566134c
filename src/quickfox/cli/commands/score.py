"""`llm score`: how surprising each line of a text is to a model; a filter, like `grep`."""

import dataclasses
import heapq
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quickfox.cli.formatting import color_by_surprisal
from quickfox.cli.options import JsonOption, ModelOption, StrictOption, ThreadsOption
from quickfox.cli.streams import notify, escape_unprintable, stream_product
from quickfox.errors import UsageError
from quickfox.system.threads import pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.cli.score_inputs import Text
    from quickfox.evaluation.scoring import Score
    from quickfox.model import Model

EXAMPLES = """\b
Examples:
  llm score chapter.txt | sort -rn | head
  llm score --top 10 logs/*.log
  tail -f server.log | llm score --above 3
  llm score essays/ --by document --json | jq .bits_per_character
  llm score --heat chapter.txt | less -R

\b
Columns, with tabs between them:
  1  bits per character
  2  perplexity of a token
  3  where the most surprising character is: [FILE:]LINE:COLUMN
  4  this character
  5  its bits
  6  the line
Where nothing is predicted, as in an empty line, they are -."""

UNDEFINED = "-"


@dataclass(frozen=True)
class Spot:
    """The most surprising character of a text: where it is, what it is, its bits."""

    line: int
    column: int
    character: str
    bits: float


@dataclass(frozen=True)
class Record:
    """A line or document and how surprising it is."""

    text: "Text"
    score: "Score"

    @property
    def spot(self) -> Spot | None:
        """Where it is most so; None if nothing is predicted."""
        peak = self.score.peak
        if peak is None:
            return None
        text = self.text.text
        line = (self.text.line or 1) + text.count("\n", 0, peak)  # only in a document are there line ends
        return Spot(line, peak - text.rfind("\n", 0, peak), text[peak], float(self.score.bits[peak]))


def run(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE...]",
            help="Texts in UTF-8; .gz is unpacked; folders and globs too. Default: standard input, which is also -.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    by: Annotated[
        Literal["line", "document"], typer.Option("--by", help="Score each line, or each file as one text.")
    ] = "line",
    above: Annotated[
        float | None,
        typer.Option(
            "--above",
            metavar="X",
            help="Only lines of more than X bits per character, unchanged; the names of such documents.",
            show_default=False,
        ),
    ] = None,
    below: Annotated[
        float | None, typer.Option("--below", metavar="X", help="Likewise, less than X.", show_default=False)
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", metavar="N", min=1, help="Only the N most surprising, in this order.", show_default=False
        ),
    ] = None,
    heat: Annotated[
        bool, typer.Option("--heat", help="Show the text, each character on a background from yellow to red.")
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Measure how surprising each line is to a model, in bits per character, and where most.

    A line's score depends on that line alone: the model reads it as the first of a text. Its end does not count.
    """
    if heat and as_json:
        raise UsageError("--heat and --json exclude each other: give one")
    pin_numpy_threads(1)  # each of our own threads keeps a processor busy
    from quickfox.checkpoints.run_directory import find_model
    from quickfox.cli.score_inputs import iter_groups, open_sources
    from quickfox.model import describe_unknown, load_directory

    directory, note = find_model(model, os.environ, Path())
    if note:
        notify(note)
    loaded = load_directory(directory)
    sources = open_sources(files or ["-"])
    unknown: Counter[str] = Counter()
    scored = _score(loaded, iter_groups(sources, by), None if strict else unknown, threads)
    groups = ([record for record in group if _is_between(record, above, below)] for group in scored)
    filtered = above is not None or below is not None
    show = _presentation(heat=heat, as_json=as_json, filtered=filtered, name_files=len(sources) > 1)
    for group in groups if top is None else [_most_surprising(groups, top)]:
        stream_product(["".join(map(show, group))])  # shown at once, whoever waits at the pipe
    if unknown:
        notify(f"warning: {describe_unknown(unknown)}")


def _score(
    model: "Model", groups: Iterable[list["Text"]], unknown: Counter[str] | None, threads: int | None
) -> Iterator[list[Record]]:
    from quickfox.system.threads import available_threads

    for group in groups:
        scores = model.score([text.text for text in group], unknown, threads=threads or available_threads())
        yield [Record(text, score) for text, score in zip(group, scores, strict=True)]


def _is_between(record: Record, above: float | None, below: float | None) -> bool:
    """Whether a text passes the filters; one in which nothing is predicted only where there are none."""
    bits = record.score.bits_per_character
    if bits is None:
        return above is None and below is None
    return (above is None or bits > above) and (below is None or bits < below)


def _most_surprising(groups: Iterable[list[Record]], count: int) -> list[Record]:
    """The records of most bits per character, the highest first, equal ones in their order."""
    records = (record for group in groups for record in group)
    defined = ((record.score.bits_per_character, record) for record in records if record.score.characters)
    return [record for _, record in heapq.nlargest(count, defined, key=itemgetter(0))]


# Showing a record.


def _presentation(*, heat: bool, as_json: bool, filtered: bool, name_files: bool) -> Callable[[Record], str]:
    """How records are to be shown."""
    if as_json:
        return _as_json
    if heat:
        return _in_colour
    return _unchanged if filtered else partial(_as_row, name_files=name_files)


def _as_row(record: Record, *, name_files: bool) -> str:
    text, score, spot = record.text, record.score, record.spot
    place = f"{text.file}:" if name_files else ""
    if spot is None:
        cells = [UNDEFINED, UNDEFINED, f"{place}{text.line or 1}", UNDEFINED, UNDEFINED]
    else:
        place += f"{spot.line}:{spot.column}"
        cells = [f"{score.bits_per_character:.4f}", f"{score.perplexity:.4f}"]
        cells += [place, escape_unprintable(spot.character), f"{spot.bits:.4f}"]
    if text.line is not None:
        cells.append(text.text)
    return "\t".join(cells) + "\n"


def _as_json(record: Record) -> str:
    text, score = record.text, record.score
    line = {} if text.line is None else {"line": text.line, "text": text.text}
    perplexity = score.perplexity
    values = {
        "file": text.file,
        **line,
        "characters": score.characters,
        "tokens": score.tokens,
        "unknown_characters": score.unknown_characters,
        "bits_per_character": score.bits_per_character,
        "perplexity": None if perplexity == math.inf else perplexity,
        "most_surprising": record.spot and dataclasses.asdict(record.spot),
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def _in_colour(record: Record) -> str:
    return _ended(color_by_surprisal(record.text.text, record.score.bits))


def _unchanged(record: Record) -> str:
    text = record.text
    return f"{text.file}\n" if text.line is None else _ended(text.text + text.end)


def _ended(text: str) -> str:
    """The text with a line end at its end, whether or not it had one."""
    return text if text.endswith("\n") else f"{text}\n"

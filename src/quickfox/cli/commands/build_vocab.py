"""`llm build-vocab`: count the characters of a text and save those that a model shall know."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from quickfox.cli.options import CorpusArgument
from quickfox.cli.streams import notify, printable, write_stderr
from quickfox.cli.tables import format_table

NAME = "build-vocab"

EXAMPLES = """\b
Examples:
  llm build-vocab corpus.txt
  llm build-vocab books/ articles/*.txt.gz --min-count 5 -o vocab.json
  llm train books/ --vocab vocab.json"""

RAREST_SHOWN = 8


def run(
    corpus: CorpusArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The vocabulary file to write.")
    ] = Path("vocab.json"),
    min_count: Annotated[
        int, typer.Option("--min-count", metavar="N", help="Leave out characters that occur less often.")
    ] = 1,
) -> None:
    """Save the vocabulary of a text. `llm train --vocab` takes it; without one it takes all characters of its text."""
    from quickfox.text.corpus import open_corpus
    from quickfox.text.tokenizers import CharacterTokenizer, save_tokenizer
    from quickfox.text.vocabulary import build_vocabulary, count_characters

    counts = count_characters(open_corpus(corpus, notify).iter_text())
    vocabulary = build_vocabulary(counts, min_count)
    save_tokenizer(CharacterTokenizer(vocabulary), output)
    write_stderr(_describe(counts, vocabulary.characters, output))


def _describe(counts: Counter[str], kept: tuple[str, ...], output: Path) -> str:
    rarest = sorted(kept, key=lambda character: (counts[character], character))[:RAREST_SHOWN]
    covered = sum(counts[character] for character in kept)
    return format_table(
        [
            ("characters", f"{counts.total():,}"),
            ("distinct", f"{len(counts):,}"),
            ("in the vocabulary", f"{len(kept):,}"),
            ("rarest of them", ", ".join(f"{character!r} {counts[character]:,}" for character in rarest)),
            ("coverage", _percentage(covered, counts.total())),
            ("saved", printable(str(output))),
        ]
    )


def _percentage(part: int, whole: int) -> str:
    """A share in percent that says 100% only when nothing is missing."""
    return "100%" if part == whole else f"{min(100 * part / whole, 99.9999):.4f}%"

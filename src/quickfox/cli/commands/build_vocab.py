"""`llm build-vocab`: choose the characters, words or subwords of a text that a model shall know, and save them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickfox.cli.formatting import format_table
from quickfox.cli.options import CorpusArgument
from quickfox.cli.streams import can_show_progress, escape_unprintable, notify, write_stderr
from quickfox.config.model import TokenizerKind
from quickfox.system.threads import pin_numpy_threads

if TYPE_CHECKING:
    from quickfox.text.corpus import Corpus
    from quickfox.tokenizers.base import Tokenizer

EXAMPLES = """\b
Examples:
  llm build-vocab corpus.txt
  llm build-vocab books/ articles/*.txt.gz --min-count 5 -o vocab.json
  llm build-vocab books/ --tokenizer bpe --vocabulary-size 2000
  llm train books/ --vocab vocab.json"""

RAREST_SHOWN = 8


def run(
    corpus: CorpusArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The vocabulary file to write.")
    ] = Path("vocab.json"),
    tokenizer: Annotated[
        TokenizerKind, typer.Option(help="What a token is: a character, byte, word or subword.")
    ] = "char",
    vocabulary_size: Annotated[
        int | None,
        typer.Option(
            "--vocabulary-size",
            metavar="N",
            help="Most tokens of a word or bpe tokenizer. Default: 4096.",
            show_default=False,
        ),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            "--min-count",
            metavar="N",
            help="Leave out what occurs less often. Default: 1 for characters, 2 for words and pairs of subwords.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Save the vocabulary of a text. `llm train --vocab` takes it; without one it takes all characters of its text."""
    pin_numpy_threads(1)  # no product is computed here, and threads for them take time to start
    from quickfox.text.corpus import open_corpus
    from quickfox.text.jsonl import iter_texts
    from quickfox.text.vocabulary import count_characters
    from quickfox.tokenizers.build import build_tokenizer
    from quickfox.tokenizers.serialization import save_tokenizer

    opened = open_corpus(corpus, notify)
    with _reading_bar() as reading:
        counts = count_characters(iter_texts(opened.with_progress(reading("characters", opened.size))))
        read = opened.with_progress(reading("vocabulary", opened.size))
        built = build_tokenizer(tokenizer, iter_texts(read), vocabulary_size, min_count, counts)
        description = list(_describe(opened.with_progress(reading("measuring", opened.size)), counts, built))
    save_tokenizer(built, output)
    write_stderr(format_table([*description, ("saved", escape_unprintable(str(output)))]))


@contextmanager
def _reading_bar() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """What shows how far a text has been read, where that can be seen: see `display.ReadingBar.reading`."""
    if not can_show_progress():
        yield lambda _stage, _size: lambda _read: None
        return
    from quickfox.cli.live_display import ReadingBar  # imports Rich

    with ReadingBar() as bar:
        yield bar.start_progress


def _describe(corpus: "Corpus", counts: Counter[str], tokenizer: "Tokenizer") -> Iterator[tuple[str, str]]:
    from quickfox.tokenizers.character import CharacterTokenizer

    yield "characters", f"{counts.total():,}"
    yield "distinct", f"{len(counts):,}"
    if isinstance(tokenizer, CharacterTokenizer):
        yield from _describe_characters(counts, tokenizer.vocabulary.characters)
    else:
        from quickfox.text.jsonl import iter_texts
        from quickfox.text.segmentation import align_chunks

        tokens = sum(len(tokenizer.encode(block)) for block in align_chunks(iter_texts(corpus)))
        yield "in the vocabulary", f"{tokenizer.vocabulary_size:,}"
        yield "tokens", f"{tokens:,}"
        yield "characters a token", f"{counts.total() / tokens:.2f}"


def _describe_characters(counts: Counter[str], kept: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    rarest = sorted(kept, key=lambda character: (counts[character], character))[:RAREST_SHOWN]
    covered = sum(counts[character] for character in kept)
    yield "in the vocabulary", f"{len(kept):,}"
    yield "rarest of them", ", ".join(f"{character!r} {counts[character]:,}" for character in rarest)
    yield "coverage", _percentage(covered, counts.total())


def _percentage(part: int, whole: int) -> str:
    """A share in percent that says 100% only when nothing is missing."""
    return "100%" if part == whole else f"{min(100 * part / whole, 99.9999):.4f}%"

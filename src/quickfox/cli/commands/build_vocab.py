"""`llm build-vocab`: builds the vocabulary of a tokenizer from a text and saves it."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from quickfox.cli.formatting import format_table
from quickfox.cli.options import CorpusArgument, option, with_corpus_options
from quickfox.cli.streams import can_show_progress, escape_unprintable, notify, write_stderr
from quickfox.config.corpus import CorpusOptions
from quickfox.config.model import TokenizerKind
from quickfox.config.training import TrainingRequest
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

MAX_RAREST = 8

_HELP = {field.name: field.metadata["help"] for field in dataclasses.fields(TrainingRequest)}


@with_corpus_options
def run(
    corpus: CorpusArgument,
    *,
    corpus_options: CorpusOptions,
    output: Annotated[
        Path, option("--output -o", "The vocabulary file to write. Default: vocab.json.", metavar="FILE")
    ] = Path("vocab.json"),
    tokenizer: Annotated[TokenizerKind, option("--tokenizer", _HELP["tokenizer"])] = "char",
    vocabulary_size: Annotated[int | None, option("--vocabulary-size", _HELP["vocabulary_size"], metavar="N")] = None,
    min_count: Annotated[
        int | None,
        option(
            "--min-count",
            "Minimum count of a character, word or pair of subwords. Default: 1 for characters, else 2.",
            metavar="N",
        ),
    ] = None,
) -> None:
    """Build the vocabulary of a text for `llm train --vocab`. Without it, train builds one from its own corpus."""
    pin_numpy_threads(1)  # there are no matrix products, and starting threads takes time
    from quickfox.text.corpus import open_corpus
    from quickfox.text.vocabulary import count_characters
    from quickfox.tokenizers.build import build_tokenizer
    from quickfox.tokenizers.serialization import save_tokenizer

    opened = open_corpus(corpus, notify, options=corpus_options)
    with _open_progress() as start_progress:
        counts = count_characters(_read(opened, start_progress("characters", opened.size)))
        text = _read(opened, start_progress("vocabulary", opened.size))
        built = build_tokenizer(
            tokenizer, text, vocabulary_size, min_count, counts, are_independent=opened.has_documents
        )
        spans = opened.with_progress(start_progress("measuring", opened.size)).iter_spans()
        rows = list(_tabulate(spans, counts, built))
    save_tokenizer(built, output)
    write_stderr(format_table([*rows, ("saved", escape_unprintable(str(output)))]))


def _read(corpus: "Corpus", on_read: Callable[[int], None]) -> Iterator[str]:
    return chain.from_iterable(corpus.with_progress(on_read).iter_spans())


@contextmanager
def _open_progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """The progress callbacks of `ReadingBar.start_progress`; no-ops without a terminal."""
    if not can_show_progress():
        yield lambda _stage, _size: lambda _count: None
        return
    from quickfox.cli.live_display import ReadingBar  # imports Rich

    with ReadingBar() as bar:
        yield bar.start_progress


def _tabulate(
    spans: Iterable[Iterable[str]], counts: Counter[str], tokenizer: "Tokenizer"
) -> Iterator[tuple[str, str]]:
    from quickfox.tokenizers.character import CharacterTokenizer

    yield "characters", f"{counts.total():,}"
    yield "distinct", f"{len(counts):,}"
    if isinstance(tokenizer, CharacterTokenizer):
        kept = tokenizer.vocabulary.characters
        rarest = sorted(kept, key=lambda character: (counts[character], character))[:MAX_RAREST]
        covered = sum(counts[character] for character in kept) / counts.total()
        yield "in the vocabulary", f"{len(kept):,}"
        yield "rarest", ", ".join(f"{character!r} {counts[character]:,}" for character in rarest)
        yield "coverage", "100%" if covered == 1 else f"{min(100 * covered, 99.9999):.4f}%"  # never rounded to 100%
    else:
        from quickfox.text.segmentation import align_chunks

        tokens = sum(len(tokenizer.encode(chunk)) for span in spans for chunk in align_chunks(span))
        yield "in the vocabulary", f"{tokenizer.vocabulary_size:,}"
        yield "tokens", f"{tokens:,}"
        yield "characters per token", f"{counts.total() / tokens:.2f}"

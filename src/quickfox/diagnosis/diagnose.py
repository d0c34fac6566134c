"""Check a corpus: one reading that counts and collects, and a second one to show repeated passages in their place."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from quickfox.diagnosis.characters import CharacterCheck
from quickfox.diagnosis.findings import Finding
from quickfox.diagnosis.reading import iter_batches
from quickfox.diagnosis.repetition import FingerprintCollector, FingerprintTable
from quickfox.diagnosis.statistics import Sample, entropy, script_shares
from quickfox.errors import NoInputError
from quickfox.text.corpus import Corpus
from quickfox.text.sources import display_name

MIN_PASSAGE = 400
"""Characters from which a repeated passage is a fault; refrains and formulas are shorter."""
MAX_OVERLAP = 0.05
"""Share of a held-out text from which its overlap with the training text is a fault, without any copied document."""
MIN_CHARACTERS = 20_000
"""Characters below which a text is too small: its held-out tenth has less than 2,000 tokens."""
SKEWED_DOCUMENTS, SKEWED_SHARE = 10, 0.5
"""Number of documents from which it is a fault that one of them has more than this share of the text."""
RARE_COUNT = 2
MAX_RARE = 20
_BPE_CHARACTERS = 3_000_000


@dataclass(frozen=True)
class RareCharacter:
    """A character that occurs at most RARE_COUNT times.

    Attributes:
        character: it.
        count: number of occurrences.
        where: the place of the first.
    """

    character: str
    count: int
    where: str


@dataclass(frozen=True)
class Diagnosis:
    """What a corpus is like, and what is wrong with it.

    Attributes:
        documents: number of documents, or of the files of a plain text.
        characters: number of characters.
        distinct_characters: number of different ones.
        shortest_document, median_document, longest_document: lengths in characters.
        scripts: share of each script among the letters.
        entropy_order_0: bits per character of the frequencies of the characters.
        sample: measures of a sample, see `statistics.Sample`.
        rare_characters: the rarest, at most MAX_RARE.
        overlap: share of the held-out text that is in this corpus; None: there is none.
        findings: the faults.
        advice: recommended settings, each in a line.
    """

    documents: int
    characters: int
    distinct_characters: int
    shortest_document: int
    median_document: int
    longest_document: int
    scripts: dict[str, float]
    entropy_order_0: float
    sample: dict[str, float]
    rare_characters: list[RareCharacter]
    overlap: float | None
    findings: list[Finding]
    advice: list[str]


def diagnose(corpus: Corpus, against: Corpus | None = None) -> Diagnosis:
    """Check a corpus in bounded memory.

    Args:
        corpus: the training text.
        against: a held-out text, which should have nothing in common with it.

    Raises:
        QuickfoxError: a file cannot be read.
    """
    characters, collector, sample = CharacterCheck(), FingerprintCollector(), Sample(corpus.size)
    for batch in iter_batches(corpus):
        characters.add(batch)
        collector.add(batch)
        sample.add(batch)
    table = collector.finish()
    if len(table.digests) == 0:
        raise NoInputError(f"{display_name(corpus.names[0])}: no text to check")
    findings = list(characters.findings())
    findings += _find_duplicates(corpus, table)
    findings += _find_passages(corpus, table)
    findings += _check_lengths(corpus, table)
    overlap = None
    if against is not None:
        overlap, found = _check_overlap(table, against)
        findings += found
    counts = characters.counts
    present = counts[counts > 0]
    return Diagnosis(
        documents=len(table.digests),
        characters=collector.characters,
        distinct_characters=len(present),
        shortest_document=int(table.document_lengths.min()),
        median_document=int(np.median(table.document_lengths)),
        longest_document=int(table.document_lengths.max()),
        scripts=script_shares(counts),
        entropy_order_0=entropy(counts),
        sample=sample.measures(),
        rare_characters=_rarest(characters),
        overlap=overlap,
        findings=findings,
        advice=list(_advise(corpus, counts)),
    )


def _find_duplicates(corpus: Corpus, table: FingerprintTable) -> Iterator[Finding]:
    copies = np.flatnonzero(table.originals != np.arange(len(table.originals)))
    if len(copies):
        copy, original = (table.document_name(int(number)) for number in (copies[0], table.originals[copies[0]]))
        message = f"documents that repeat an earlier one, such as {original}: --fix leaves them out"
        yield Finding("duplicate", len(copies), copy, message)
    near = table.near_duplicates()
    if near:
        first, second = (table.document_name(number) for number in near[0])
        message = f"documents that nearly repeat an earlier one, such as {first}: a split must not separate them"
        yield Finding("near-duplicate", len(near), second, message)


def _find_passages(corpus: Corpus, table: FingerprintTable) -> Iterator[Finding]:
    """Repeated passages, other than those of documents that are duplicates as a whole."""
    duplicates = {second for _, second in table.near_duplicates()}
    duplicates.update(np.flatnonzero(table.originals != np.arange(len(table.originals))).tolist())
    passages = [
        passage
        for passage in table.passages(MIN_PASSAGE)
        if int(np.searchsorted(table.document_starts, passage.second, "right")) - 1 not in duplicates
    ]
    if passages:
        first, second = locate(corpus, (passages[0].first, passages[0].second))
        message = (
            f"passages that repeat earlier text; the longest has about {passages[0].length:,} characters, as at {first}"
        )
        yield Finding("repeated-passage", len(passages), second, message)


def locate(corpus: Corpus, positions: Iterable[int]) -> list[str]:
    """The places of characters, by their positions in the corpus, in any order; reads the corpus again."""
    places = {}
    wanted = sorted(set(positions := list(positions)), reverse=True)
    offset = 0
    for batch in iter_batches(corpus):
        while wanted and wanted[-1] < offset + len(batch.text):
            position = wanted.pop()
            places[position] = batch.place_of(position - offset)
        offset += len(batch.text)
        if not wanted:
            break
    return [places[position] for position in positions]


def _check_lengths(corpus: Corpus, table: FingerprintTable) -> Iterator[Finding]:
    lengths = table.document_lengths
    total, longest = int(lengths.sum()), int(lengths.argmax())
    if len(lengths) >= SKEWED_DOCUMENTS and lengths[longest] > SKEWED_SHARE * total:
        message = f"one of {len(lengths):,} documents has {lengths[longest] / total:.0%} of the text"
        yield Finding("length-skew", 1, table.document_name(longest), message)
    if total < MIN_CHARACTERS:
        message = f"{total:,} characters are too few: a tenth of them held out measures little; add text"
        yield Finding("too-small", total, table.document_name(0), message)


def _check_overlap(table: FingerprintTable, against: Corpus) -> tuple[float, list[Finding]]:
    collector = FingerprintCollector()
    for batch in iter_batches(against):
        collector.add(batch)
    held_out = collector.finish()
    share, copies = held_out.overlap_with(table)
    if not copies and share <= MAX_OVERLAP:
        return share, []
    where = held_out.document_name(copies[0]) if copies else display_name(against.names[0])
    message = f"held-out documents that are training text too, {share:.1%} of the held-out text: its loss is too low"
    return share, [Finding("overlap", len(copies), where, message)]


def _rarest(check: CharacterCheck) -> list[RareCharacter]:
    rare = [(int(check.counts[ord(character)]), character) for character in check.first_places]
    rare = sorted(each for each in rare if each[0] <= RARE_COUNT)[:MAX_RARE]
    return [RareCharacter(character, count, check.first_places[character]) for count, character in rare]


def _advise(corpus: Corpus, counts: np.ndarray) -> Iterator[str]:
    """Recommended settings; the tokenizer by the comparison in docs/training.md."""
    total = int(counts.sum())
    present = counts[counts > 0]
    rare = present[present <= RARE_COUNT]
    has_spaces = counts[ord(" ")] > total / 50
    if total >= _BPE_CHARACTERS and has_spaces:
        yield "--tokenizer bpe: the text is long enough to learn subwords, which cover more of it at a time"
    elif len(present) > 1000:
        yield f"--tokenizer char: {len(present):,} distinct characters are a large vocabulary; byte has 256 tokens"
    else:
        yield f"--tokenizer char: {len(present):,} distinct characters, and too little text to learn subwords well"
    if len(rare) > 0.1 * len(present) and len(rare) >= 10:
        share = rare.sum() / total
        yield (
            f"--min-count {RARE_COUNT + 1} of build-vocab: leaves out {len(rare):,} characters that occur at most "
            f"{RARE_COUNT} times, {share:.4%} of the text"
        )
    if not corpus.has_documents and len(corpus.names) > 1:
        yield "files are read as one text; if each line is an independent text, use --lines"

"""How close generated completions are to their references: exact match, character and word error rate, chrF.

Each measure is a function of counts that are summed over all completions, so that a set of completions is an array of
counts, one row per completion, and a resampled set is a weighted sum of its rows. The definitions are those of jiwer 4
(error rates) and sacrebleu 2 (chrF2, Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation").
"""

import itertools
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from quickfox.config.media import MediaConfig
from quickfox.data.encoding import signal_ids
from quickfox.data.frames import first_frame_id
from quickfox.evaluation.scoring import Score, score
from quickfox.evaluation.signals import Bind
from quickfox.generation.greedy import complete_greedily
from quickfox.media.features import scale_frames
from quickfox.media.signals import iter_frames
from quickfox.models.inputs import Frames, collect_frames
from quickfox.text.documents import Document
from quickfox.tokenizers.base import Tokenizer, start_of_text

Counts = npt.NDArray[np.int64]
Measures = dict[str, npt.NDArray[np.float64]]

CHRF_ORDER = 6
CHRF_BETA = 2.0
"""Recall weighs beta times as much as precision."""

MAX_TOKENS = 500
"""Tokens after which a completion ends, if its model does not end it; the default of `generate`. More if the reference
is longer."""

_DOCUMENTS = 1024
"""Documents completed at a time, sorted by length."""


def generate_completions(
    bind: Bind,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    unknown: Counter[str] | None = None,
    media: MediaConfig | None = None,
) -> Iterator[tuple[str, str]]:
    """The greedy completion of each document's prompt, and its reference; documents without a prompt are left out.

    Args:
        bind: the language model, or of one that reads signals, the model that reads the given frames.
        tokenizer: its tokenizer, with an end-of-text token.
        documents: prompts with their references.
        unknown: if given, unknown characters of the prompts are left out and counted here.
        media: how the model reads signals; None: it reads text only.

    Raises:
        DataError: a character is unknown, and `unknown` is not given.
    """
    assert tokenizer.end_of_text is not None
    start = start_of_text(tokenizer)
    with_prompt = (document for document in documents if document.prompt or document.signal)
    while batch := list(itertools.islice(with_prompt, _DOCUMENTS)):
        prompts = [
            np.concatenate([start, *(tokenizer.encode(text, unknown) for text in document.prompt)])
            for document in batch
        ]
        frames = None
        if media is not None:
            frames, prompts = _insert_signals(batch, prompts, tokenizer, media)
        model = bind(frames)
        longest = max(len(tokenizer.encode(document.completion, Counter())) for document in batch)
        completed = complete_greedily(model, prompts, tokenizer.end_of_text, max(MAX_TOKENS, longest))
        for token_ids, document in zip(completed, batch, strict=True):
            yield tokenizer.decode(token_ids), document.completion


def score_completions(
    bind: Bind,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    unknown: Counter[str] | None,
    threads: int,
    media: MediaConfig,
) -> list[Score]:
    """The surprisal of the completion of each document, after its signal and prompt; see `scoring.score`."""
    start = start_of_text(tokenizer)
    prompts = [
        np.concatenate([start, *(tokenizer.encode(text, unknown) for text in document.prompt)])
        for document in documents
    ]
    frames, prompts = _insert_signals(documents, prompts, tokenizer, media)
    completions = [document.completion for document in documents]
    return score(bind(frames), tokenizer, completions, unknown, threads, [prompt[1:] for prompt in prompts])


def _insert_signals(
    documents: Sequence[Document], prompts: Sequence[np.ndarray], tokenizer: Tokenizer, media: MediaConfig
) -> tuple[Frames, list[np.ndarray]]:
    """The frames of the documents' signals, and the prompts with them after the first token."""
    texts = []
    for (_, frames), prompt in zip(iter_frames(documents, media), prompts, strict=True):
        values = np.zeros((0, media.frame_dim), np.float16) if frames is None else frames
        inserted = prompt[:0] if frames is None else signal_ids(frames, tokenizer, media)
        texts.append((np.concatenate([prompt[:1], inserted, prompt[1:]]), scale_frames(values, media)))
    return collect_frames(texts, first_frame_id(tokenizer.vocabulary_size))


def count_matches(hypothesis: str, reference: str) -> list[int]:
    """The counts of one completion, which `measure` sums over many: a row of 6 + 3 * CHRF_ORDER integers."""
    characters, words = (reference.strip(), _words(reference))
    counts = [
        1,
        hypothesis == reference,
        edit_distance(characters, hypothesis.strip()),
        len(characters),
        edit_distance(words, _words(hypothesis)),
        len(words),
    ]
    texts = ["".join(text.split()) for text in (hypothesis, reference)]
    for order in range(1, CHRF_ORDER + 1):
        ours, theirs = (Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in texts)
        # As in sacrebleu, n-grams longer than the reference do not count as wrong.
        counts += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return counts


def count_all_matches(pairs: Iterable[tuple[str, str]]) -> Counts:
    """`count_matches` of (hypothesis, reference) pairs: (n, 6 + 3 * CHRF_ORDER)."""
    rows = itertools.chain.from_iterable(count_matches(*pair) for pair in pairs)
    return np.fromiter(rows, np.int64).reshape(-1, 6 + 3 * CHRF_ORDER)


def measure(counts: Counts) -> Measures:
    """The measures of summed counts, (..., 6 + 3 * CHRF_ORDER) -> name -> (...).

    Returns:
        exact_match: share of completions that equal their reference.
        cer: character edits per reference character, leading and trailing white space aside.
        wer: word edits per reference word.
        chrf: F-score of character n-grams, 0 to 100; white space does not count.
    """
    total, matches, character_edits, characters, word_edits, words = np.moveaxis(counts[..., :6], -1, 0)
    return {
        "exact_match": matches / total,
        "cer": character_edits / np.maximum(characters, 1),
        "wer": word_edits / np.maximum(words, 1),
        "chrf": _chrf(counts[..., 6:]),
    }


def _chrf(counts: Counts) -> npt.NDArray[np.float64]:
    """The F-score of mean precision and mean recall over the orders that occur: (..., 3 * CHRF_ORDER) -> (...)."""
    ours, theirs, matches = np.moveaxis(counts.reshape(*counts.shape[:-1], CHRF_ORDER, 3), -1, 0)  # (..., 6) each
    counted = (ours > 0) & (theirs > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision, recall = (
        np.where(counted, matches / np.maximum(total, 1), 0).sum(axis=-1) / orders for total in (ours, theirs)
    )
    factor = CHRF_BETA**2
    denominator = factor * precision + recall
    score: npt.NDArray[np.float64] = 100 * (1 + factor) * precision * recall / np.where(denominator > 0, denominator, 1)
    return score


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The Levenshtein distance of two sequences: insertions, deletions and substitutions.

    Bit-parallel: one bit of an integer per element of `first` (Myers 1999, "A fast bit-vector algorithm for approximate
    string matching", in the form of Hyyrö 2003); the vertical differences of a column are +1 in `up` and -1 in `down`.
    """
    if not first:
        return len(second)
    positions: dict[Hashable, int] = {}
    for index, element in enumerate(first):
        positions[element] = positions.get(element, 0) | 1 << index
    mask, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    up, down, distance = mask, 0, len(first)
    for element in second:
        equal = positions.get(element, 0)
        zero = ((((equal & up) + up) ^ up) | equal | down) & mask
        right_up, right_down = down | (mask & ~(zero | up)), up & zero
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = right_up << 1 | 1, right_down << 1
        up, down = mask & (right_down | ~(zero | right_up)), mask & right_up & zero
    return distance


def _words(text: str) -> list[str]:
    """Words as in jiwer, which separates them at spaces after merging white space of two or more characters."""
    return [word for word in re.sub(r"\s\s+", " ", text).strip().split(" ") if word]

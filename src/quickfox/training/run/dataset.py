"""The text of a run: its tokenizer, and its token ids in files that are kept while the run trains."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from quickfox.checkpoints.run_directory import TOKENS_FILE
from quickfox.config.media import MediaConfig
from quickfox.config.schema import exclusive_error
from quickfox.data.corpus_writer import EncodedCorpus, encode_corpus
from quickfox.data.dataset import Tokens, open_corpus_tokens, split_tokens, token_paths
from quickfox.data.encoding import Split, iter_training_texts, training_share
from quickfox.data.overlap import measure_overlap
from quickfox.errors import DataError, NoInputError
from quickfox.files.atomic import sync
from quickfox.files.errors import translate_write_errors
from quickfox.text.corpus import Corpus
from quickfox.text.sources import STANDARD_INPUT
from quickfox.text.vocabulary import count_characters, describe_characters
from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.build import build_tokenizer, check_tokenizer_settings
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import load_tokenizer
from quickfox.training.engine.events import RunContext
from quickfox.training.planning.auto_config import choose_window
from quickfox.training.planning.time_budget import MAX_VALIDATION_TOKENS
from quickfox.training.run.record import CorpusRecord, RunRecord
from quickfox.training.run.transfer import ResolvedRequest, extend_vocabulary

MIN_VALIDATION_TARGETS = 1000
OVERLAP_CHARACTERS = 64  # that must be the same in both texts, about
MIN_OVERLAP = 0.05
MAX_TOKENS_PER_CHARACTER = 0.8  # of words and subwords; a text with spaces has less than 0.5


def choose_tokenizer(
    corpus: Corpus, vocabulary_path: Path | None, resolved: ResolvedRequest, run_context: RunContext
) -> tuple[Tokenizer, Split | None]:
    """Loads the tokenizer of a file or of the run that is repeated, extends that of a pretrained model, or builds one.

    It is built from the training share alone. It has an end-of-text token if the corpus consists of documents, and an
    unknown token if it is one of characters. A requested kind or size of tokenizer replaces the pretrained tokenizer.

    Returns:
        The tokenizer, and the split of the corpus; None: no part of it is held out.

    Raises:
        UsageError: both a file and a kind or size of tokenizer are requested.
        QuickfoxError: any other subclass: the file or the corpus cannot be read or is invalid.
    """
    recorded, config_run = resolved.recorded_tokenizer, resolved.config_run
    if recorded and config_run and corpus.digest() == config_run.corpus.sha256:  # that run is repeated
        return recorded, _split_corpus(corpus, resolved, run_context)
    request, pretrained = resolved.training, resolved.pretrained
    requested = [name for name in ("tokenizer", "vocabulary_size") if getattr(request, name) is not None]
    given: Tokenizer | None = None
    if vocabulary_path is not None:
        if requested:
            raise exclusive_error(requested[0], "vocab")
        given = load_tokenizer(vocabulary_path)
    elif pretrained is not None and not requested:
        given = pretrained.bundle.tokenizer
    kind = given.kind if given else request.tokenizer or "char"
    if given is None:
        check_tokenizer_settings(kind, request.vocabulary_size)
    split = _split_corpus(corpus, resolved, run_context)
    training = None if split is None or split.training_units == 0 else split  # too short a text is refused later
    on_read, rest = run_context.start_progress("vocabulary", corpus.size), corpus.size

    def read() -> Iterator[str]:
        def advance(count: int) -> None:
            nonlocal rest
            rest -= count
            on_read(count)

        yield from iter_training_texts(corpus.with_progress(advance), training)
        on_read(rest)  # the held-out text, which is not read

    if given is None:
        tokenizer = build_tokenizer(kind, read(), request.vocabulary_size, are_independent=corpus.has_documents)
    elif isinstance(given, CharacterTokenizer):
        counts = count_characters(read())
        if vocabulary_path is None:
            given = extend_vocabulary(given, set(counts))
        tokenizer = given.with_unknown_token(counts)
    else:
        tokenizer = given
    return tokenizer.with_end_of_text() if corpus.has_documents else tokenizer, split


def _split_corpus(corpus: Corpus, resolved: ResolvedRequest, run_context: RunContext) -> Split | None:
    """The part of the corpus to hold out; None: no part. Raises DataError if no document is left to train on."""
    if resolved.validation_split == 0.0:
        return None
    text = corpus.with_progress(run_context.start_progress("counting", corpus.size))
    split = Split.of(text, resolved.validation_split, resolved.random_seed)
    if split.documents and not split.training_units:
        count = "the only document" if split.documents == 1 else f"all {split.documents} documents"
        raise DataError(
            f"validation_split {resolved.validation_split:g} holds out {count} of the corpus: add documents, or choose "
            f"validation_split 0",
            "validation_split",
        )
    return split


def encode_corpus_checked(
    corpus: Corpus,
    tokenizer: Tokenizer,
    path: Path,
    split: Split | None,
    resolved: ResolvedRequest,
    notify: Callable[[str], None],
    validation: Corpus | None = None,
    media: MediaConfig | None = None,
) -> EncodedCorpus:
    """Writes the token ids of a corpus to `path` if the tokenizer covers it and it is long enough to train on.

    Raises:
        DataError: the tokenizer lacks characters of the training share other than rare ones, that share is too short
            for the window, or the corpus changed after its characters were counted.
        NoInputError: no tokens remain.
        QuickfoxError: any other subclass: reading or writing failed.
    """
    if validation is not None and validation.has_documents != corpus.has_documents:
        forms = ["documents" if each.has_documents else "plain text" for each in (corpus, validation)]
        raise DataError(f"the corpus is {forms[0]} and validation is {forms[1]}: give both in one form", "validation")
    encoded = encode_corpus(corpus, tokenizer, path, split, validation, media=media)
    if encoded.unknown:
        description = describe_characters(sorted(encoded.unknown))
        if not isinstance(tokenizer, CharacterTokenizer) or tokenizer.vocabulary.min_count == 1:
            raise DataError(
                f"the vocabulary lacks characters of the corpus: {description}; omit vocab, or run `llm build-vocab`",
                "vocab",
            )
        notify(f"{encoded.unknown.total():,} characters of the corpus are too rare for the vocabulary: {description}")
    if encoded.tokens == 0:
        raise NoInputError("the corpus is empty")
    if validation is not None and encoded.held_out_unknown.total() == encoded.validation_characters:
        raise DataError(
            f"{validation.names[0]}: none of its characters occurs in the training text: choose a validation text like "
            f"that",
            "validation",
        )
    units = encoded.documents or encoded.characters
    if split is not None and split.training_units != training_share(units, resolved.validation_split):
        raise DataError("the corpus changed while it was read: start the run again")
    if media is None:  # else the window is chosen by the longest document
        _check_length(encoded, tokenizer, resolved)
    return encoded


def _check_length(encoded: EncodedCorpus, tokenizer: Tokenizer, resolved: ResolvedRequest) -> None:
    """Raises DataError if the training text is too short for the window."""
    window = choose_window(resolved.training)
    minimum = window + 1  # the last target must be a training token too
    if encoded.training_tokens >= minimum:
        return
    unit = "characters" if tokenizer.kind == "char" else "tokens"
    size = f"the training text has {encoded.training_tokens:,} {unit}"
    whole_minimum = math.ceil(round(minimum / (1.0 - resolved.validation_split), 6))
    if encoded.tokens < whole_minimum:
        size, minimum = f"the corpus has {encoded.tokens:,} {unit}", whole_minimum
    if resolved.training.architecture == "ngram":
        raise DataError(f"{size}, but an n-gram model needs at least {minimum:,}: add text")
    raise DataError(
        f"{size}, but window {window} needs at least {minimum:,}: add text, or choose a shorter one", "window"
    )


def advise(encoded: EncodedCorpus, tokens: tuple[Tokens, Tokens], tokenizer: Tokenizer, window: int) -> Iterator[str]:
    """What a person should know about a corpus and its held-out text; `tokens` are those of both parts.

    `window` is that of the training.
    """
    has_signals = tokens[0].frames is not None
    is_dense = encoded.tokens > MAX_TOKENS_PER_CHARACTER * encoded.characters
    if is_dense and not has_signals and tokenizer.kind in ("word", "bpe"):
        yield (
            f"tokenizer {tokenizer.kind} does not suit this text: its {encoded.characters:,} characters are "
            f"{encoded.tokens:,} tokens, most of them single bytes; choose tokenizer "
            f"{'bpe or ' if tokenizer.kind == 'word' else ''}char"
        )
    if encoded.held_out_unknown:
        description = describe_characters(character for character, _ in encoded.held_out_unknown.most_common())
        count = encoded.held_out_unknown.total()
        yield (
            f"{count:,} character{'s' * (count > 1)} of the held-out text {'do' if count > 1 else 'does'} not occur in "
            f"the training text: {description}"
        )
    targets = tokens[1].num_targets
    if len(tokens[1]) > 0 and targets < MIN_VALIDATION_TARGETS:
        yield (
            f"the held-out text has only {targets:,} tokens to predict: the validation loss is a rough estimate, and "
            f"so is the choice of the best checkpoint; hold out {MIN_VALIDATION_TARGETS:,} or more"
        )
    if has_signals:
        yield from _advise_of_long_documents(tokens[0], window)
        return  # frames are not compared
    overlap_window = OVERLAP_CHARACTERS if tokenizer.kind in ("char", "byte") else OVERLAP_CHARACTERS // 4
    share = measure_overlap(*tokens, overlap_window, tokenizer.end_of_text)
    if share >= MIN_OVERLAP:
        yield (
            f"at least {share:.0%} of the held-out text also occurs in the training text: the validation loss says "
            f"little about other text; remove duplicates, or validate on another text"
        )


def _advise_of_long_documents(training: Tokens, window: int) -> Iterator[str]:
    """A line for the person if documents are too long to train on."""
    lengths = training.signal_documents.lengths
    count = int((lengths > window).sum())
    if count:
        yield (
            f"{count:,} of {len(lengths):,} documents are longer than a window of {window} and are left out: the "
            f"longest has {lengths.max():,} positions"
        )


def describe_corpus(corpus: Corpus, encoded: EncodedCorpus, validation: Corpus | None) -> CorpusRecord:
    """The entry of `run.json` for a corpus."""
    return CorpusRecord(
        files=_absolute_names(corpus),
        characters=encoded.characters,
        tokens=encoded.tokens,
        training_tokens=encoded.training_tokens,
        sha256=encoded.digest,
        has_documents=corpus.has_documents,
        is_chat=corpus.is_chat,
        options=corpus.options,
        documents=encoded.documents or None,
        validation_files=_absolute_names(validation) if validation else (),
        tokens_sha256=encoded.tokens_digest,
    )


def _absolute_names(corpus: Corpus) -> tuple[str, ...]:
    return tuple(name if name == STANDARD_INPUT else str(Path(name).absolute()) for name in corpus.names)


def flush_tokens(path: Path) -> None:
    """Flushes the token files at `path` to the disk; raises CannotCreateError or StorageError."""
    with translate_write_errors(path):
        for file in token_paths(path):
            sync(file)


def open_split(
    run: Path,
    tokenizer: Tokenizer,
    corpus: CorpusRecord,
    training_tokens: int,
    random_seed: int,
    media: MediaConfig | None = None,
) -> tuple[Tokens, Tokens]:
    """The first `training_tokens` tokens of a run, in its token files, and those after them for validation.

    Of a very long held-out text, its first MAX_VALIDATION_TOKENS are used.

    Raises:
        NoInputError, DataError, StorageError: the files are missing, damaged or cannot be opened.
    """
    tokens = open_corpus_tokens(run / TOKENS_FILE, tokenizer, has_documents=corpus.has_documents, media=media)
    training, held_out = split_tokens(tokens, tokenizer, training_tokens, random_seed)
    return training, held_out.part(0, min(len(held_out), MAX_VALIDATION_TOKENS))


def open_run_split(run: Path, tokenizer: Tokenizer, record: RunRecord) -> tuple[Tokens, Tokens]:
    """`open_split` of a recorded run whose token files are in the folder `run`."""
    settings = record.training_tokens, record.training.random_seed, record.model.media
    return open_split(run, tokenizer, record.corpus, *settings)

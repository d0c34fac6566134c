"""Subword tokens by byte-pair encoding (Sennrich et al. 2016; of bytes: Radford et al. 2019).

Starting from single bytes, the most frequent pair of neighbors in the corpus is merged into a new token, repeatedly; a
text is encoded by the same merges in the same order, within words. The `tokenizers` library does the work, and its
`tokenizer.json` is the file format, so tokenizers are exchanged with other programs unchanged. Only those are accepted
that encode bytes without loss: any that normalizes, adds or removes text is refused.
"""

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy.typing as npt

from quickfox.errors import DataError
from quickfox.text.segmentation import iter_segments
from quickfox.tokenizers.byte_level import ByteLevelTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Encoder

END_OF_TEXT = "<|endoftext|>"

MAX_PIECE_CHARACTERS = 64
"""Maximum length of a text without spaces, or of spaces, within which pairs are counted."""

_LONG_RUN = re.compile(rf"\S{{{MAX_PIECE_CHARACTERS + 1},}}|\s{{{MAX_PIECE_CHARACTERS + 1},}}")

_END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")
"""Names of end-of-text tokens, in order of preference."""

_REQUIRED = {"added_tokens", "model"}
_CHANGES_TEXT = ("normalizer", "truncation", "padding")
_MEMBERS = {*_REQUIRED, *_CHANGES_TEXT, "version", "pre_tokenizer", "post_processor", "decoder"}


@dataclass(frozen=True)
class BpeTokenizer(ByteLevelTokenizer):
    """A tokenizer of the `tokenizers` library.

    Attributes:
        definition: the content of its tokenizer.json.

    Raises:
        DataError: the library cannot read it, or it does not encode bytes without loss.
    """

    kind = "bpe"
    definition: dict[str, Any]

    def __post_init__(self) -> None:
        _check_definition(self.definition)
        self.tokens  # noqa: B018 - computed now, as it may raise
        self._encoder  # noqa: B018

    @cached_property
    def tokens(self) -> Sequence[bytes]:
        byte_of = {character: value for value, character in byte_characters().items()}
        added = {token["id"]: token for token in self.definition["added_tokens"]}
        found: dict[int, bytes] = {}
        for text, token_id in self.definition["model"]["vocab"].items():
            try:
                found[token_id] = b"" if token_id in added else bytes(byte_of[character] for character in text)
            except KeyError:
                raise DataError(f"token {text[:20]!r} is not in the byte-level alphabet") from None
        found |= {token_id: b"" if token["special"] else token["content"].encode() for token_id, token in added.items()}
        if sorted(found) != list(range(len(found))):
            raise DataError("its token ids are not consecutive from 0")
        if missing := set(range(256)) - {token[0] for token in found.values() if len(token) == 1}:
            raise DataError(f"it has no token for the byte 0x{min(missing):02x}, so it cannot encode every text")
        return [found[token_id] for token_id in range(len(found))]

    @cached_property
    def end_of_text(self) -> int | None:
        return self._special_ids.get(self.end_of_text_name or "")

    @property
    def end_of_text_name(self) -> str | None:
        """Name of the end-of-text token in the definition; None: there is none."""
        return next((name for name in _END_OF_TEXT_NAMES if name in self._special_ids), None)

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        return {token["content"]: token["id"] for token in self.definition["added_tokens"] if token["special"]}

    def with_end_of_text(self) -> Self:
        if self.end_of_text is not None:
            return self
        from tokenizers import AddedToken, Tokenizer

        encoder = Tokenizer.from_str(json.dumps(self.definition))
        encoder.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        return replace(self, definition=json.loads(encoder.to_str()))

    def to_json(self) -> dict[str, Any]:
        return self.definition

    def _encode_known(self, texts: Sequence[str]) -> tuple[npt.ArrayLike, Sequence[int]]:
        segments = [list(iter_segments([text])) for text in texts]
        encodings = self._encoder.encode_batch_fast(list(itertools.chain(*segments)), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        counts = map(len, ids)
        return list(itertools.chain(*ids)), [sum(itertools.islice(counts, len(each))) for each in segments]

    def safe_length(self, text: str) -> int:
        pre_tokenizer = self._encoder.pre_tokenizer
        assert pre_tokenizer is not None, "a definition has one"
        pieces = pre_tokenizer.pre_tokenize_str(text)
        return int(pieces[-1][1][0]) if pieces else 0

    @cached_property
    def _encoder(self) -> "Encoder":
        from tokenizers import Tokenizer

        try:
            encoder = Tokenizer.from_str(json.dumps(self.definition))
        except Exception as error:  # the library has no exception class of its own
            raise DataError(f"the tokenizers library cannot read it: {error}") from None
        encoder.encode_special_tokens = True  # the names of special tokens in a text are text
        return encoder


def build_bpe_tokenizer(segments: Iterable[str], vocabulary_size: int, min_count: int = 2) -> BpeTokenizer:
    """Trains byte-pair encoding on a text, within words as GPT-2 splits them.

    Args:
        segments: the text, from `iter_segments`.
        vocabulary_size: maximum number of tokens, >= 256.
        min_count: minimum number of occurrences of a pair, >= 1.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(map(_bound_pieces, segments), trainer=trainer)
    return BpeTokenizer(json.loads(encoder.to_str()))


def _bound_pieces(segment: str) -> list[str]:
    """A segment divided within its long runs: the time to train takes the square of the length of a piece.

    Texts without spaces, such as Thai or DNA, are a single piece otherwise. Encoding takes linear time without it.
    """
    cuts = [0]
    for run in _LONG_RUN.finditer(segment):
        cuts += range(run.start() + MAX_PIECE_CHARACTERS, run.end(), MAX_PIECE_CHARACTERS)
    return [segment[start:end] for start, end in itertools.pairwise([*cuts, len(segment)])]


def is_definition(value: Any) -> bool:
    """Whether a JSON value looks like a tokenizer.json of the `tokenizers` library."""
    return isinstance(value, dict) and "model" in value and "version" in value and "format_version" not in value


def byte_characters() -> dict[int, str]:
    """The byte-level alphabet of GPT-2: byte -> character, the same if visible, the others from U+0100 in order."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in visible]
    return {value: chr(value) for value in visible} | {value: chr(256 + n) for n, value in enumerate(others)}


def _check_definition(value: dict[str, Any]) -> None:
    """Raises DataError unless it encodes bytes without loss and deterministically."""
    if unknown := sorted(value.keys() - _MEMBERS):
        raise DataError(f"unknown member {unknown[0][:40]!r}")
    if missing := sorted(_REQUIRED - value.keys()):
        raise DataError(f"member {missing[0]!r} is missing")
    _check_added_tokens(value["added_tokens"])
    for name in _CHANGES_TEXT:
        if value.get(name) is not None:
            raise DataError(f"it has a {name}, which would change texts")
    model = value["model"]
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise DataError("its model is not byte-pair encoding")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise DataError(f"its model has {name}, which is not supported")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not all(type(token_id) is int for token_id in vocabulary.values()):
        raise DataError("its model has no vocabulary that maps texts to ids")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise DataError("two tokens of its vocabulary have the same id")
    if not _is_byte_level(value.get("pre_tokenizer")):
        raise DataError("its pre_tokenizer is not byte-level (ByteLevel without add_prefix_space)")


def _check_added_tokens(tokens: Any) -> None:
    if not isinstance(tokens, list):
        raise DataError("added_tokens must be a list")
    for token in tokens:
        is_token = isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"]
        if not is_token or type(token.get("id")) is not int or not isinstance(token.get("special"), bool):
            raise DataError("added_tokens must each have an id, a content and a boolean special")
        if not token["special"] and (token.get("lstrip") or token.get("rstrip")):
            raise DataError(f"added token {token['content'][:20]!r} removes spaces around it (lstrip or rstrip)")
    for name in ("id", "content"):
        if len({token[name] for token in tokens}) < len(tokens):
            raise DataError(f"two added_tokens have the same {name}")


def _is_byte_level(pre_tokenizer: Any) -> bool:
    """Whether the text is split without loss and then converted to the byte-level alphabet."""
    if not isinstance(pre_tokenizer, dict):
        return False
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        return False
    *splits, last = steps
    are_lossless = all(
        step.get("type") == "Digits" or (step.get("type") == "Split" and step.get("behavior") != "Removed")
        for step in splits
    )
    return are_lossless and last.get("type") == "ByteLevel" and last.get("add_prefix_space") is False

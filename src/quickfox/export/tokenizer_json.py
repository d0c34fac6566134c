"""Every kind of tokenizer as a `tokenizer.json` of the `tokenizers` library, which gives the same token ids.

All become byte-pair encodings. With no merges, a text falls into the characters it is made of; with `ignore_merges`, a
piece that the vocabulary knows as a whole is one token. An end of text, if there is one, is put before each text, as
this program does itself.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from quickfox.tokenizers.base import Tokenizer
from quickfox.tokenizers.bpe import END_OF_TEXT, BpeTokenizer, byte_characters
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.word import WordTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Encoder

_WORD_CHARACTER = r"[\p{L}\p{N}_]"
_WHITE_SPACE = r"[\s\x1c-\x1f]"
_PIECE = rf" ?{_WORD_CHARACTER}+| ?[^\p{{L}}\p{{N}}_\s\x1c-\x1f]+|{_WHITE_SPACE}"
"""`tokenizers.word` splits a text so, in the words of Python's regular expressions; here in those of Oniguruma."""


def end_of_text_name(tokenizer: Tokenizer) -> str | None:
    """What the end-of-text token is called; None: there is none."""
    if tokenizer.end_of_text is None:
        return None
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.end_of_text_name
    return END_OF_TEXT


def format_tokenizer_definition(tokenizer: Tokenizer) -> bytes:
    """The content of the tokenizer.json that encodes and decodes as `tokenizer` does, in UTF-8.

    Characters that a `tokenizer` of characters does not know are left out.
    """
    encoder = _encoder(tokenizer)
    name = end_of_text_name(tokenizer)
    if name is not None:
        from tokenizers import AddedToken, processors

        encoder.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        encoder.post_processor = processors.TemplateProcessing(
            single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, tokenizer.end_of_text)]
        )
    return encoder.to_str(pretty=True).encode()


def _encoder(tokenizer: Tokenizer) -> "Encoder":
    from tokenizers import Regex, decoders, pre_tokenizers
    from tokenizers import Tokenizer as Encoder

    if isinstance(tokenizer, BpeTokenizer):
        return Encoder.from_str(json.dumps(tokenizer.definition))
    if isinstance(tokenizer, CharacterTokenizer):
        encoder = _lookup({character: number for number, character in enumerate(tokenizer.vocabulary.characters)})
        encoder.decoder = decoders.Fuse()
        return encoder
    assert isinstance(tokenizer, ByteTokenizer | WordTokenizer), tokenizer.kind
    marks = byte_characters()
    numbers = range(tokenizer.vocabulary_size if tokenizer.end_of_text is None else tokenizer.end_of_text)
    encoder = _lookup({"".join(marks[value] for value in tokenizer.token_bytes(number)): number for number in numbers})
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    encoder.decoder = decoders.ByteLevel()
    return encoder


def _lookup(vocabulary: Mapping[str, int]) -> "Encoder":
    """A piece that is in the vocabulary is one token, any other one token a character."""
    from tokenizers import Tokenizer as Encoder
    from tokenizers import models

    return Encoder(models.BPE(vocab=dict(vocabulary), merges=[], ignore_merges=True))

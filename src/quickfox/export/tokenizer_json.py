"""Export of any tokenizer to a `tokenizer.json` of Hugging Face's `tokenizers` library, which gives the same token ids.

All become byte-pair encodings. Without merges, a text is encoded by character; with `ignore_merges`, a pre-token of the
vocabulary becomes one token. The end-of-text token, if there is one, is put before each text, as in Quickfox.
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

UNKNOWN = "<|unknown|>"

_WORD_CHARACTER = r"[\p{L}\p{N}_]"
_WHITE_SPACE = r"[\s\x1c-\x1f]"
_PRE_TOKEN = rf" ?{_WORD_CHARACTER}+| ?[^\p{{L}}\p{{N}}_\s\x1c-\x1f]+|{_WHITE_SPACE}"
"""The regular expression of `quickfox.tokenizers.word` in the syntax of Oniguruma."""


def end_of_text_name(tokenizer: Tokenizer) -> str | None:
    """The name of the end-of-text token; None: there is none."""
    if tokenizer.end_of_text is None:
        return None
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.end_of_text_name
    return END_OF_TEXT


def format_tokenizer_definition(tokenizer: Tokenizer) -> bytes:
    """The content of a tokenizer.json, in UTF-8, that encodes and decodes as `tokenizer` does.

    A character tokenizer without an unknown token leaves out characters that it does not know.
    """
    encoder = _build_encoder(tokenizer)
    name = end_of_text_name(tokenizer)
    if name is not None:
        from tokenizers import AddedToken, processors

        encoder.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        encoder.post_processor = processors.TemplateProcessing(
            single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, tokenizer.end_of_text)]
        )
    return encoder.to_str(pretty=True).encode()


def _build_encoder(tokenizer: Tokenizer) -> "Encoder":
    from tokenizers import Regex, decoders, pre_tokenizers
    from tokenizers import Tokenizer as Encoder

    if isinstance(tokenizer, BpeTokenizer):
        return Encoder.from_str(json.dumps(tokenizer.definition))
    if isinstance(tokenizer, CharacterTokenizer):
        vocabulary = {text: token_id for token_id, text in enumerate(tokenizer.vocabulary.characters)}
        if tokenizer.unknown_token is None:
            encoder = _build_lookup(vocabulary)
        else:
            if tokenizer.end_of_text is not None:  # its id is below that of the unknown token
                vocabulary[END_OF_TEXT] = tokenizer.end_of_text
            encoder = _build_lookup(vocabulary | {UNKNOWN: tokenizer.unknown_token.token_id}, UNKNOWN)
        encoder.decoder = decoders.Fuse()
        return encoder
    assert isinstance(tokenizer, ByteTokenizer | WordTokenizer), tokenizer.kind
    characters = byte_characters()
    ids = range(tokenizer.vocabulary_size if tokenizer.end_of_text is None else tokenizer.end_of_text)
    names = {token_id: "".join(characters[value] for value in tokenizer.token_bytes(token_id)) for token_id in ids}
    encoder = _build_lookup({name: token_id for token_id, name in names.items()})
    split = pre_tokenizers.Split(Regex(_PRE_TOKEN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    encoder.decoder = decoders.ByteLevel()
    return encoder


def _build_lookup(vocabulary: Mapping[str, int], unknown: str | None = None) -> "Encoder":
    """An encoder of pre-tokens: one token if it is in the vocabulary, else one per character, or `unknown`."""
    from tokenizers import Tokenizer as Encoder
    from tokenizers import models

    return Encoder(models.BPE(vocab=dict(vocabulary), merges=[], ignore_merges=True, unk_token=unknown))

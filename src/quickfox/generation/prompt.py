"""A text to continue as a model reads it: unknown characters are transliterated or left out, the rest is encoded.

The signal before it, if there is one, is encoded too; what reads signals is imported on use.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from quickfox.config.media import KIND_NAMES, MediaConfig, MediaKind
from quickfox.errors import DataError, UsageError
from quickfox.models.inputs import Frames, collect_frames
from quickfox.text.transliteration import describe_transliteration, transliterate
from quickfox.text.vocabulary import describe_characters, leave_out_unknown
from quickfox.tokenizers.base import Tokenizer, UnknownToken, start_of_text

if TYPE_CHECKING:
    from quickfox.media.signals import Decoded, SignalInput
    from quickfox.text.documents import Signal

Unknown = Literal["fold", "skip", "error"]
"""Treatment of characters of a prompt that the model does not know: transliterate them, and leave out the rest; leave
them all out; raise DataError."""


@dataclass(frozen=True)
class Prompt:
    """A text to continue, encoded for a model.

    Attributes:
        text: the seed after transliteration, without the characters that the model does not know.
        token_ids: of the text, after the end-of-text token if the model has one; else, for an empty text, of a newline
            if the model knows it.
        unknown: the characters left out -> number of occurrences.
        transliterated: (character or cluster, its replacement) -> number of occurrences.
        frames: of the signal before the text, whose ids are among `token_ids`; None: there is none.
    """

    text: str
    token_ids: list[int]
    unknown: Counter[str]
    transliterated: Counter[tuple[str, str]]
    frames: Frames | None = None

    @property
    def warning(self) -> str | None:
        """How the text differs from the seed, in one line; None: it does not."""
        return describe_prompt_changes(self.transliterated, self.unknown)


def encode_prompt(
    tokenizer: Tokenizer,
    seed: str | Sequence[str],
    unknown: Unknown = "fold",
    media: MediaConfig | None = None,
    signal: "Decoded | None" = None,
) -> Prompt:
    """Encode a seed.

    Args:
        tokenizer: of the model.
        seed: the text to continue, or its parts, over whose borders no token extends.
        unknown: treatment of characters that the tokenizer does not know.
        media: how the model reads signals; None: it reads text only.
        signal: before the seed, of the kind that the model reads; None: there is none.

    Raises:
        DataError: `unknown` is "error", and the seed has characters that the tokenizer does not know.
        UsageError: `unknown` is another word.
    """
    if unknown not in get_args(Unknown):
        raise UsageError(f"unknown must be one of {', '.join(get_args(Unknown))}, not {unknown!r}", "unknown")
    transliterated: Counter[tuple[str, str]] = Counter()
    unknown_counts: Counter[str] = Counter()
    token_ids: list[int] = []
    for text in [seed] if isinstance(seed, str) else seed:
        if unknown == "fold":
            text, replaced = transliterate(text, tokenizer.known_characters)
            transliterated += replaced
        if unknown != "error":
            text, left_out = leave_out_unknown(text, tokenizer.known_characters)
            unknown_counts += left_out
        token_ids += tokenizer.encode(text).tolist()
    start = start_of_text(tokenizer).tolist() if not token_ids or tokenizer.end_of_text is not None else []
    frames = None
    if media is not None and signal is not None:
        frames, signal_ids = _encode_signal(tokenizer, media, signal)
        start += signal_ids
    return Prompt(tokenizer.decode(token_ids), start + token_ids, unknown_counts, transliterated, frames)


def _encode_signal(tokenizer: Tokenizer, media: MediaConfig, signal: "Decoded") -> tuple[Frames, list[int]]:
    """The frames of a signal, and its input ids in the model that reads them."""
    from quickfox.data.encoding import signal_ids
    from quickfox.data.frames import first_frame_id
    from quickfox.media.features import scale_frames
    from quickfox.media.signals import to_frames

    values = to_frames(signal, media)
    texts = [(signal_ids(values, tokenizer, media), scale_frames(values, media))]
    frames, [ids] = collect_frames(texts, first_frame_id(tokenizer.vocabulary_size))
    return frames, ids.tolist()


def read_input(
    media: MediaConfig | None, audio: "SignalInput | None" = None, image: "SignalInput | None" = None
) -> "Decoded | None":
    """The decoded signal of a prompt; None: the model reads text only.

    Raises:
        UsageError: the model does not read such a signal, or reads one and none is given.
        QuickfoxError: as `media.signals.decode_input`.
    """
    signals: dict[MediaKind, SignalInput | None] = {"audio": audio, "image": image}
    given = {kind: value for kind, value in signals.items() if value is not None}
    for kind in given:
        if media is None or kind != media.kind:
            raise UsageError(f"the model reads {_describe(media)}: leave {kind} out", kind)
    if media is None:
        return None
    if not given:
        raise UsageError(f"the model reads {_describe(media)}: give {media.kind}", media.kind)
    from quickfox.media.signals import decode_input

    return decode_input(given[media.kind], media.kind)


def read_named_signal(media: MediaConfig | None, signal: "Signal | None") -> "Decoded | None":
    """The decoded signal that a document names; errors as of `read_input`, with file and line."""
    if signal is None:
        return read_input(media)
    if media is None or media.kind != signal.kind:
        raise DataError(f"{signal.where}: names {KIND_NAMES[signal.kind]}, and the model reads {_describe(media)}")
    from quickfox.media.signals import read_signal

    return read_signal(signal)


def _describe(media: MediaConfig | None) -> str:
    return KIND_NAMES[media.kind] if media else "text only"


def describe_prompt_changes(transliterated: Counter[tuple[str, str]], unknown: Counter[str]) -> str | None:
    """The warning that characters were transliterated or left out; None: none were."""
    changes = [f"replaced {describe_transliteration(transliterated)}"] if transliterated else []
    if unknown:
        changes.append(describe_unknown_characters(unknown))
    return "; ".join(changes) or None


def describe_unknown_characters(unknown: Counter[str], token: UnknownToken | None = None) -> str:
    """The warning that the model does not know characters of a text; without a `token` for them, they are left out."""
    characters = describe_characters(character for character, _ in unknown.most_common())
    count = unknown.total()
    what = "1 character" if count == 1 else f"{count:,} characters"
    if token is not None:
        return f"{what} that the model does not know: {characters}; each costs {token.nats / math.log(2):.1f} bits"
    return f"left out {what} that the model does not know: {characters}"

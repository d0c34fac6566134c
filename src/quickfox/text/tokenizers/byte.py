"""One token a byte of UTF-8: knows every text, and needs no corpus to be built from.

{"format_version": 1, "type": "byte"}
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quickfox.text.tokenizers.byte_level import SINGLE_BYTES, ByteLevelTokenizer


@dataclass(frozen=True)
class ByteTokenizer(ByteLevelTokenizer):
    """A byte's value is its token id; 256 is the end of text, if `has_end_of_text`."""

    has_end_of_text: bool = False

    @property
    def kind(self) -> Literal["byte"]:
        return "byte"

    @cached_property
    def tokens(self) -> Sequence[bytes]:
        return (*SINGLE_BYTES, b"") if self.has_end_of_text else SINGLE_BYTES

    @property
    def end_of_text(self) -> int | None:
        return len(SINGLE_BYTES) if self.has_end_of_text else None

    def with_end_of_text(self) -> "ByteTokenizer":
        return replace(self, has_end_of_text=True)

    def to_json(self) -> dict[str, Any]:
        return {}

    def _encode_known(self, text: str) -> npt.ArrayLike:
        return np.frombuffer(text.encode(), np.uint8)

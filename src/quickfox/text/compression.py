"""The size of a text compressed by gzip and xz: what a model has to beat."""

import lzma
import zlib
from typing import Any

_GZIP_FORMAT = 31  # zlib's window of 2**15 bytes, with the header and trailer of a gzip file


class CompressionBaseline:
    """The size of a text compressed by gzip and by xz, chunk by chunk; the output is discarded."""

    def __init__(self) -> None:
        self.characters = 0
        # xz needs 80 MB, and up to 700 MB for a text as large.
        self._compressors: list[Any] = [zlib.compressobj(9, wbits=_GZIP_FORMAT), lzma.LZMACompressor(preset=9)]
        self._sizes = [0, 0]

    def add(self, text: str) -> None:
        """Compress the next chunk."""
        self.characters += len(text)
        data = text.encode()
        for index, compressor in enumerate(self._compressors):
            self._sizes[index] += len(compressor.compress(data))

    def bits_per_character(self) -> list[float]:
        """Of gzip and of xz; to be called once, after the last chunk."""
        sizes = [size + len(each.flush()) for size, each in zip(self._sizes, self._compressors, strict=True)]
        return [8 * size / self.characters for size in sizes]

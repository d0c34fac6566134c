"""Two models on the same text: the difference of their losses, in bits per byte, which do not depend on the tokenizer.

The text is divided into blocks, its documents or BLOCKS parts of equal size, of which a bootstrap resamples.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from quickfox.data.dataset import Tokens, collect_tokens
from quickfox.data.encoding import EncodedChunk
from quickfox.evaluation.perplexity import token_sizes
from quickfox.evaluation.predictions import predict
from quickfox.models.language_model import LanguageModel
from quickfox.tokenizers.base import Tokenizer

BLOCKS = 100
"""Parts of a plain text: long enough to be nearly independent, and enough for an interval."""


def block_losses(model: LanguageModel, tokenizer: Tokenizer, chunks: Iterable[EncodedChunk]) -> npt.NDArray[np.float64]:
    """The loss of each block of a text: (K, 2), its bits and the bytes of its targets.

    Args:
        model: the language model.
        tokenizer: its tokenizer.
        chunks: a plain text, or documents after a first end-of-text token.

    Raises:
        DataError: no token can be predicted.
    """
    masks: list[np.ndarray] = []
    token_bytes = np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocabulary_size)])
    sizes_of_chunks: list[np.ndarray] = []  # bytes of each token

    def read() -> Iterable[np.ndarray]:
        for chunk in chunks:
            if chunk.loss_mask is not None:
                masks.append(chunk.loss_mask)
            sizes_of_chunks.append(token_sizes(chunk, tokenizer, token_bytes))
            yield chunk.ids

    ids = collect_tokens(read(), tokenizer.token_dtype)
    mask = np.concatenate(masks) if masks else None
    bits = predict(model, Tokens(ids, mask, tokenizer.unknown_token)).bits
    sizes = np.concatenate(sizes_of_chunks)[1:]
    if mask is None:
        ends, count = np.cumsum(sizes), BLOCKS
        blocks = (ends - 1) * BLOCKS // max(1, int(ends[-1]))
    else:
        is_end = ids == tokenizer.end_of_text
        sizes, count = sizes[mask[1:]], max(0, int(np.count_nonzero(is_end)) - 1)  # the first token is one too
        blocks = np.cumsum(is_end)[:-1][mask[1:]] - 1  # the document of each target
    return np.stack([np.bincount(blocks, weights, minlength=count) for weights in (bits, sizes)], axis=1)


def bits_per_byte(losses: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """The measure of summed losses, (..., 2), for `bootstrap.compare`."""
    return {"bits_per_byte": losses[..., 0] / np.maximum(losses[..., 1], 1)}

"""Text that is held out and trained on too is recognized."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.data import overlap
from quickfox.data.dataset import Tokens
from quickfox.data.overlap import measure_overlap

END = 255


def text_of(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 50, length).astype(np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("chunk", [1000, 2**20])
def test_the_share_of_a_plain_text(monkeypatch: pytest.MonkeyPatch, share: float, chunk: int) -> None:
    monkeypatch.setattr(overlap, "_CHUNK_LENGTH", chunk)
    training, held_out = text_of(20_000, 0), text_of(4_000, 1)
    held_out[: int(share * 4000)] = training[777 : 777 + int(share * 4000)]
    assert measure_overlap(Tokens(training), Tokens(held_out), 16, None) == pytest.approx(share, abs=0.01)


def documents_of(lengths: list[int], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 50, length).astype(np.uint8) for length in lengths]


def join(documents: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.append(document, np.uint8(END)) for document in documents])


@given(
    st.lists(st.integers(8, 60), min_size=2, max_size=30),
    st.lists(st.integers(8, 60), min_size=1, max_size=10),
    st.integers(0, 10),
    st.sampled_from([40, 2**20]),
)
def test_the_share_of_documents(training: list[int], held_out: list[int], copies: int, chunk: int) -> None:
    """Of any lengths, whether or not they are longer than a window of 16 tokens."""
    known, new = documents_of(training, 0), documents_of(held_out, 1)
    copied = [known[index % len(known)] for index in range(copies)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_CHUNK_LENGTH", chunk)
        ids = np.append(np.uint8(END), join([*new, *copied]))
        found = measure_overlap(Tokens(join(known)), Tokens(ids), 16, END)
    weights = [[len(each) if len(each) < 16 else len(each) - 15 for each in group] for group in (copied, new)]
    assert found == pytest.approx(sum(weights[0]) / sum(map(sum, weights)), abs=1e-6)


def test_of_long_texts_a_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "MAX_READ_TOKENS", 2**15)
    monkeypatch.setattr(overlap, "MAX_FINGERPRINTS", 2**11)
    text = text_of(2**18, 3)
    assert measure_overlap(Tokens(text), Tokens(text), 16, None) > 0.8
    assert measure_overlap(Tokens(text), Tokens(text_of(2**17, 4)), 16, None) == 0.0
    training, held_out = text_of(2**18, 5).reshape(-1, 256), text_of(2**14, 6).reshape(-1, 256)
    training[:, :64] = held_out[:, :64] = text_of(64, 7)  # a passage that is in every part
    share = measure_overlap(Tokens(training.reshape(-1)), Tokens(held_out.reshape(-1)), 16, None)
    assert share == pytest.approx((64 - 15) / 256, abs=0.03)


def test_a_text_without_a_window_has_no_overlap() -> None:
    assert measure_overlap(Tokens(text_of(100, 0)), Tokens(text_of(5, 1)), 16, None) == 0.0

"""Corpora of JSON lines: what is a document, what is refused, what a model is to predict of it."""

from pathlib import Path

import numpy as np
import pytest

from quickfox.errors import DataError
from quickfox.text.batching import IGNORED, StreamBatches, iter_validation_windows
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.documents import Document, has_documents, iter_documents, iter_texts
from quickfox.text.token_store import Tokens, encode_corpus, iter_encoded, open_corpus_tokens
from quickfox.text.tokenizers.byte import ByteTokenizer

TOKENIZER = ByteTokenizer(has_end_of_text=True)
END = 256
LINES = '{"prompt": "1+1=", "completion": "2"}\n\n{"text": "a\\u2028b", "id": 7}\r\n{"prompt": "", "completion": ""}'


def corpus_of(folder: Path, content: str, name: str = "pairs.jsonl") -> Corpus:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return open_corpus([str(folder / name)], print)


def test_documents_by_hand(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, LINES)
    assert has_documents(corpus)
    assert list(iter_documents(corpus)) == [Document("1+1=", "2"), Document("", "a\u2028b"), Document("", "")]
    assert "".join(iter_texts(corpus)) == "1+1=2a\u2028b"


def test_plain_text_has_no_documents(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, LINES, "pairs.txt")
    assert not has_documents(corpus)
    assert "".join(iter_texts(corpus)) == LINES


def test_one_corpus_is_not_both(tmp_path: Path) -> None:
    corpus_of(tmp_path, LINES)
    corpus_of(tmp_path, LINES, "plain.txt")
    mixed = open_corpus([str(tmp_path / "pairs.jsonl"), str(tmp_path / "plain.txt")], print)
    with pytest.raises(DataError, match=r"pairs\.jsonl is JSON lines and .*plain\.txt is plain text"):
        has_documents(mixed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", "not valid JSON"),
        ('"text"', "expected"),
        ("{}", "expected"),
        ('{"prompt": "a"}', "expected"),
        ('{"completion": "a"}', "expected"),
        ('{"text": "a", "completion": "b"}', "expected"),
        ('{"text": "a", "prompt": "b", "completion": "c"}', "expected"),
        ('{"text": 3}', "'text' must be a string"),
        ('{"prompt": "a", "completion": null}', "'completion' must be a string"),
    ],
)
def test_other_lines_are_refused_by_their_number(tmp_path: Path, line: str, message: str) -> None:
    corpus = corpus_of(tmp_path, '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"pairs\.jsonl, line 2: .*{message}"):
        list(iter_documents(corpus))


def test_prompts_are_read_and_completions_with_their_end_are_to_be_predicted(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    corpus = corpus_of(tmp_path, LINES)
    encoded = encode_corpus(corpus, TOKENIZER, path)
    assert encoded.digest == corpus.digest()
    tokens = open_corpus_tokens(path, TOKENIZER.token_dtype, has_loss_mask=True)
    assert tokens.loss_mask is not None
    text = [END, *b"1+1=2", END, *"a\u2028b".encode(), END, END]
    assert tokens.ids[:].tolist() == text
    assert tokens.loss_mask[:].tolist() == [False] * 5 + [True] * (len(text) - 5)
    assert tokens.num_targets == len(text) - 5
    first, rest = tokens.split(6)
    assert (first.num_targets, len(rest)) == (1, len(text) - 6)


def test_a_text_without_an_end_cannot_hold_documents(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no end"):
        list(iter_encoded(corpus_of(tmp_path, LINES), ByteTokenizer()))


def test_what_is_not_to_be_predicted_is_no_target() -> None:
    ids = np.arange(10, dtype=np.uint8)
    mask = ids % 3 == 0
    x, y = StreamBatches(ids, 2, 4, 1, mask).batch(3)
    expected = (x + 1) % 10
    np.testing.assert_array_equal(y, np.where(expected % 3 == 0, expected, IGNORED))
    (window,) = iter_validation_windows(ids, 1, 9, 0, mask)
    np.testing.assert_array_equal(window.weight[0], mask[1:])


def test_tokens_that_are_all_to_be_predicted_need_no_mask() -> None:
    assert Tokens(np.arange(5, dtype=np.uint8)).num_targets == 4
    assert Tokens(np.zeros(0, np.uint8)).num_targets == 0

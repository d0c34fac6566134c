"""Corpora of documents as JSON: documents, invalid lines, and the loss mask."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickfox.data.batching import StreamBatches, iter_validation_windows
from quickfox.data.corpus_writer import encode_corpus
from quickfox.data.dataset import IGNORED, Tokens, open_corpus_tokens
from quickfox.data.encoding import Split, encode_corpus_chunks
from quickfox.errors import DataError
from quickfox.files.json import MAX_JSON_BYTES
from quickfox.text.corpus import Corpus, open_corpus
from quickfox.text.documents import Document, iter_lines
from quickfox.text.sources import CHUNK_BYTES
from quickfox.tokenizers.byte_level import ByteTokenizer

TOKENIZER = ByteTokenizer(has_end_of_text=True)
END = 256
LINES = '{"prompt": "1+1=", "completion": "2"}\n\n{"text": "a\\u2028b", "id": 7}\r\n{"prompt": "?", "completion": ""}'


def corpus_of(folder: Path, content: str, name: str = "pairs.jsonl") -> Corpus:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return open_corpus([str(folder / name)], print)


def spans(corpus: Corpus) -> list[str]:
    return ["".join(chunks) for chunks in corpus.iter_spans()]


def test_documents_worked_example(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, LINES)
    assert corpus.has_documents
    assert list(corpus.iter_documents()) == [
        Document((("1+1=", False), ("2", True))),
        Document((("a\u2028b", True),)),
        Document((("?", False), ("", True))),
    ]
    assert spans(corpus) == ["1+1=", "2", "a\u2028b", "?"]


def test_plain_text_has_no_documents(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, LINES, "pairs.txt")
    assert not corpus.has_documents
    assert spans(corpus) == [LINES]


def test_the_units_are_documents_or_characters(tmp_path: Path) -> None:
    documents, text = corpus_of(tmp_path, LINES), corpus_of(tmp_path, LINES, "pairs.txt")
    assert (documents.count_units(), text.count_units()) == (3, len(LINES))


@pytest.mark.parametrize("documents", range(4))
def test_a_split_is_between_documents(tmp_path: Path, documents: int) -> None:
    """Of 6, 6 and 2 tokens with their ends; one more comes before those that are held out."""
    split = Split(documents, 3, random_seed=1)
    encoded = encode_corpus(corpus_of(tmp_path, LINES), TOKENIZER, tmp_path / "tokens.bin", split)
    assert encoded.training_tokens == sum(np.array([6, 6, 2])[~split.held_out_documents])
    assert encoded.tokens == 14 + (documents < 3)


def test_a_table_has_the_tokens_of_the_same_documents_in_json(tmp_path: Path) -> None:
    """Longer than a chunk, so that it is read in several batches."""
    pairs = [(f"\u00e9{number}\n", "x" * (number % 7)) for number in range(CHUNK_BYTES // 8)]
    table = "prompt,completion\n" + "".join(f'"{prompt}",{completion}\n' for prompt, completion in pairs)
    lines = "".join(f'{{"prompt": "\\u00e9{prompt[1:-1]}\\n", "completion": "{end}"}}\n' for prompt, end in pairs)
    split = Split(len(pairs) // 2, len(pairs), random_seed=1)
    encoded = [
        encode_corpus(corpus, TOKENIZER, tmp_path / "tokens.bin", split)
        for corpus in (corpus_of(tmp_path, table, "pairs.csv"), corpus_of(tmp_path, lines))
    ]
    assert encoded[0].tokens_digest == encoded[1].tokens_digest
    assert encoded[0].documents == len(pairs)


def test_json_lines_and_plain_text_cannot_be_mixed(tmp_path: Path) -> None:
    corpus_of(tmp_path, LINES)
    corpus_of(tmp_path, "plain", "plain.txt")
    with pytest.raises(DataError, match=r"pairs\.jsonl is JSON, and .*plain\.txt is plain text"):
        open_corpus([str(tmp_path / "pairs.jsonl"), str(tmp_path / "plain.txt")], print)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", "not valid JSON"),
        ('"text"', "expected"),
        ("{}", "'text' is expected, but it has no keys"),
        (
            '{"title": "a", "body": "b"}',
            "'text' is not among its keys 'title', 'body': name one with column",
        ),
        ('{"prompt": "a"}', "'completion' is not among its keys 'prompt'"),
        ('{"completion": "a"}', "'prompt' is not among its keys 'completion'"),
        (
            '{"text": "a", "completion": "b"}',
            "it is beside 'completion': choose column text",
        ),
        ('{"text": "a", "prompt": "b", "completion": "c"}', "it is beside 'prompt' and 'completion'"),
        ('{"text": ""}', "the document is empty"),
        ('{"prompt": "", "completion": ""}', "the document is empty"),
        ('{"text": 3}', "'text' must be a string"),
        ('{"prompt": "a", "completion": null}', "'completion' must be a string"),
    ],
)
def test_invalid_lines_are_reported_with_their_number(tmp_path: Path, line: str, message: str) -> None:
    corpus = corpus_of(tmp_path, '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"pairs\.jsonl, line 2: .*{message}"):
        list(corpus.iter_documents())


@given(parts=st.lists(st.text(st.sampled_from("a\n\r\u2028"))))
def test_lines_do_not_depend_on_the_chunks(parts: list[str]) -> None:
    assert list(iter_lines(parts, "a")) == list(enumerate("".join(parts).split("\n"), start=1))


def test_a_line_longer_than_a_chunk(tmp_path: Path) -> None:
    text = "quick brown fox " * (5 * CHUNK_BYTES // 16)
    content = f'{{"text": "{text}"}}\n{{"text": "end"}}'
    assert spans(corpus_of(tmp_path, content)) == [text, "end"]


def test_too_long_a_line_is_refused_before_its_end(tmp_path: Path) -> None:
    """The line ends with invalid UTF-8, which is not reached."""
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'{"text": "fine"}\n{"text": "' + b"a" * (MAX_JSON_BYTES + CHUNK_BYTES) + b"\xff")
    documents = open_corpus([str(path)], print).iter_documents()
    assert next(documents).text == "fine"
    with pytest.raises(DataError, match=rf"pairs\.jsonl, line 2: larger than the limit of {MAX_JSON_BYTES} bytes"):
        next(documents)


def test_the_limit_of_a_line_is_in_bytes(tmp_path: Path) -> None:
    content = f'{{"text": "{"ä" * (MAX_JSON_BYTES // 2)}"}}'
    with pytest.raises(DataError, match=rf"pairs\.jsonl, line 1: larger than the limit of {MAX_JSON_BYTES} bytes"):
        list(corpus_of(tmp_path, content).iter_documents())


def test_progress_of_encoding_counts_each_byte_once(tmp_path: Path) -> None:
    """The second pass for the digest is not counted."""
    corpus = corpus_of(tmp_path, LINES)
    sizes: list[int] = []
    encoded = encode_corpus(corpus.with_progress(sizes.append), TOKENIZER, tmp_path / "tokens.bin")
    assert sum(sizes) == corpus.size
    assert encoded.digest == corpus.digest()


def test_completions_and_their_end_are_targets_and_prompts_are_not(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    corpus = corpus_of(tmp_path, LINES)
    encoded = encode_corpus(corpus, TOKENIZER, path)
    assert encoded.digest == corpus.digest()
    tokens = open_corpus_tokens(path, TOKENIZER, has_documents=True)
    assert tokens.loss_mask is not None
    text = [*b"1+1=2", END, *"a\u2028b".encode(), END, *b"?", END]
    assert tokens.ids[:].tolist() == text
    assert tokens.loss_mask[:].tolist() == [False] * 4 + [True] * (len(text) - 6) + [False, True]
    assert tokens.num_targets == len(text) - 5
    assert (tokens.part(0, 5).num_targets, len(tokens.part(5, len(text)))) == (1, len(text) - 5)


def test_documents_require_an_end_of_text_token(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no end-of-text token"):
        list(encode_corpus_chunks(corpus_of(tmp_path, LINES), ByteTokenizer()))


def test_masked_tokens_are_not_targets() -> None:
    ids = np.arange(10, dtype=np.uint8)
    mask = ids % 3 == 0
    x, y = StreamBatches(ids, 2, 4, 1, mask).batch(3)
    expected = (x + 1) % 10
    np.testing.assert_array_equal(y, np.where(expected % 3 == 0, expected, IGNORED))
    (window,) = iter_validation_windows(ids, 1, 9, 0, mask)
    np.testing.assert_array_equal(window.weight[0], mask[1:])


def test_without_a_mask_all_tokens_but_the_first_are_targets() -> None:
    assert Tokens(np.arange(5, dtype=np.uint8)).num_targets == 4
    assert Tokens(np.zeros(0, np.uint8)).num_targets == 0

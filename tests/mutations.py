"""Every file format that the program reads, mutations of its content, and its reader.

Used by the tests and, with many more inputs, by benchmarks/fuzz_readers.py. The same random seed gives the same inputs.
"""

import dataclasses
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quickfox.checkpoints.checkpoint import ModelBundle, TrainingState, load_model, load_training_state, save_checkpoint
from quickfox.checkpoints.manifest import MANIFEST_NAME, MODEL_FILES, TRAINING_FILES, Manifest, digest, format_manifest
from quickfox.config.model import ModelConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.errors import QuickfoxError
from quickfox.files.json import format_json
from quickfox.models.parameters import parameter_shapes
from quickfox.models.registry import build_language_model
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer
from quickfox.training.engine.progress import Progress
from quickfox.training.run.history import HISTORY_FILE, truncate_history
from quickfox.training.run.record import CorpusRecord, RunRecord, read_record
from toy_models import NGRAM_TABLES, training_config

STEP = 5
CONFIG = ModelConfig(vocabulary_size=4, embedding_dim=2, hidden_dim=3, num_layers=2)
BUNDLE = ModelBundle(
    config=CONFIG,
    tokenizer=CharacterTokenizer(Vocabulary(("\n", "a", "b", "ß"))),
    parameters={name: np.full(shape, 0.25, np.float32) for name, shape in parameter_shapes(CONFIG).items()},
    step=STEP,
    validation_loss=1.25,
    sampling={"temperature": 0.8, "top_k": None},
)
MIXTURE = dataclasses.replace(
    BUNDLE, config=dataclasses.replace(CONFIG, ngrams=(4, 3, 2)), parameters={**BUNDLE.parameters, **NGRAM_TABLES}
)
NGRAM_MODEL = dataclasses.replace(
    MIXTURE,
    config=dataclasses.replace(MIXTURE.config, architecture="ngram", embedding_dim=0, hidden_dim=0, num_layers=0),
    parameters=NGRAM_TABLES,
)
STATE = TrainingState(
    tensors={
        "optimizer.step": np.array(STEP, np.int64),
        "carried.h": np.ones((2, 3), np.float32),
        "raw.empty": np.zeros((0, 4), np.float32),
    },
    state=to_dict(Progress(step=STEP, total_steps=40, loss_sum=1.5, loss_count=1, running_loss=1.5))
    | {"exponents": [0.5, 0.5]},  # as JSON has them
)
RECORD = RunRecord(
    model=CONFIG,
    training=training_config(
        steps=30, replans=((3, 40),), batch_size=2, learning_rate=2e-3, warmup_steps=3, weight_decay=0.1,
        dropout=0.1, validation_interval=5, patience=3
    ),
    budget_seconds=60.0,
    validation_split=0.1,
    corpus=CorpusRecord(files=("/text/corpus.txt",), characters=1000, tokens=1000, sha256="0" * 64),
    vocabulary_sha256="1" * 64,
    checkpoint_every="180.000000s",
    versions={"quickfox": "0.1.0", "numpy": "2.0.0"},
)  # fmt: skip
HISTORY = b"".join(
    json.dumps({"event": "validation", "step": step, "train_loss": 2.5, "validation_loss": None}).encode() + b"\n"
    for step in (3, 5, 8)
)
RECORD_VERSION_1 = format_json({"format_version": 1, **dataclasses.asdict(RECORD)})
"""Without a digest, which would refuse every change."""

HOSTILE_VALUES = (
    b"-1", b"0", b"1e999", b"-0.0", b"0.5", b"NaN", b"-Infinity", b"true", b"null", b"[]", b"{}", b'""',
    b"9223372036854775808", b"18446744073709551616", b"9" * 400, b"9" * 5000, b"1" + b"0" * 307, b"1e-320",
    b'"\\u0000"', b'"\\ud800"', b'"\xed\xa0\x80"', b'"../../../etc/passwd"', b'"/etc/passwd"',
    b'"' + b"a" * 3000 + b'"',
    b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 5000, b"[0, 4611686018427387904]",
    b"[" + b",".join([b"1"] * 100) + b"]", b'{"a": 1, "a": 2}', b'"F64"', b'"U8"', b"\x00", b"\xff\xfe", b"\r\n",
)  # fmt: skip
"""Difficult values for a parser; each is inserted anywhere, or replaces a value."""

_JSON_SCALAR = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


@dataclass(frozen=True)
class Reader:
    """A file in a run directory, and the function that reads it.

    Attributes:
        name: for reports.
        seed: a valid content.
        read: writes the given content to the file, with a matching manifest, and reads it.
    """

    name: str
    seed: bytes
    read: Callable[[bytes], object]


@dataclass
class Outcome:
    """Results of a reader over many inputs."""

    loaded: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def build_run(run: Path) -> Path:
    """Creates a run with one resumable checkpoint; returns the checkpoint."""
    checkpoint = run / "checkpoints" / f"step-{STEP:08d}"
    save_checkpoint(checkpoint, BUNDLE, STATE)
    return checkpoint


def readers(run: Path) -> list[Reader]:
    """All readers. They use the same run directory `run`, which must not exist, one after the other."""
    checkpoint = build_run(run)
    contents = {path.name: path.read_bytes() for path in checkpoint.iterdir()}

    def load_training() -> object:
        training = load_training_state(checkpoint)
        return from_dict(Progress, training.state, str(checkpoint / "state.json"))

    def in_checkpoint(name: str) -> Callable[[bytes], object]:
        def read_in_checkpoint(data: bytes) -> object:
            write_matching_manifest(checkpoint, contents | {name: data})
            overwrite(checkpoint / name, data)
            try:
                return load_model(checkpoint) if name in MODEL_FILES else load_training()
            finally:
                overwrite(checkpoint / name, contents[name])

        return read_in_checkpoint

    def read_as_manifest(data: bytes) -> object:
        overwrite(checkpoint / MANIFEST_NAME, data)
        return load_model(checkpoint), load_training()

    def in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def read_in_file(data: bytes) -> object:
            overwrite(path, data)
            return read(path)

        return read_in_file

    read_vocabulary = in_file(run / "vocabulary.json", load_tokenizer)
    tokenizers = [BUNDLE.tokenizer, *(build_tokenizer(kind, ["the fox the fox"]) for kind in ("word", "bpe"))]
    return [
        *(Reader(name, contents[name], in_checkpoint(name)) for name in (*MODEL_FILES, *TRAINING_FILES)),
        tables_reader(run / "ngram"),
        Reader("manifest.json", contents[MANIFEST_NAME], read_as_manifest),
        Reader(
            "manifest.json with a valid sha256",
            contents[MANIFEST_NAME],
            lambda data: read_as_manifest(with_valid_sha256(data)),
        ),
        *(
            Reader(f"vocabulary file, {tokenizer.kind}", format_tokenizer(tokenizer), read_vocabulary)
            for tokenizer in tokenizers
        ),
        Reader("run.json", RECORD_VERSION_1, in_file(run / "run.json", read_record)),
        Reader("history.jsonl", HISTORY, in_file(run / HISTORY_FILE, lambda path: truncate_history(path.parent, STEP))),
    ]


def tables_reader(checkpoint: Path) -> Reader:
    """The reader of n-gram tables, which must be usable if they are not refused."""
    name = "model.safetensors"
    save_checkpoint(checkpoint, NGRAM_MODEL, STATE)
    contents = {path.name: path.read_bytes() for path in checkpoint.iterdir()}

    def read(data: bytes) -> object:
        write_matching_manifest(checkpoint, contents | {name: data})
        overwrite(checkpoint / name, data)
        bundle = load_model(checkpoint)
        model = build_language_model(bundle.config, bundle.parameters)
        return model.forward(np.arange(4)[:, None].repeat(3, axis=1), model.initial_state(4))

    return Reader(f"{name} with n-gram tables", contents[name], read)


def overwrite(path: Path, data: bytes) -> None:
    """Replaces a file; faster than truncating it, after which some file systems flush the new content."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def write_matching_manifest(checkpoint: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the manifest of files with these contents."""
    digests = {name: digest(data) for name, data in contents.items()}
    manifest = Manifest(
        step=STEP,
        validation_loss=1.25,
        model={name: digests[name] for name in MODEL_FILES},
        training={name: digests[name] for name in TRAINING_FILES},
    )
    overwrite(checkpoint / MANIFEST_NAME, format_manifest(manifest))


def with_valid_sha256(manifest: bytes) -> bytes:
    """The manifest with the sha256 of its content; unchanged if it is not a JSON object."""
    try:
        body = json.loads(manifest)
        body.pop("sha256", None)
        return format_json({**body, "sha256": digest(format_json(body)).sha256})
    except (AttributeError, TypeError, ValueError, RecursionError):
        return manifest


def mutate(data: bytes, randomness: random.Random) -> bytes:
    """`data` with one to three mutations; the header of a safetensors file is mutated with a matching length."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length < len(data) and randomness.random() < 0.7:
        header = mutate(data[8 : 8 + length], randomness)
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    for _ in range(randomness.randint(1, 3)):
        data = randomness.choice(_MUTATIONS)(data, randomness)
    return data


def flip_bit(data: bytes, bit: int) -> bytes:
    """`data` with one bit inverted."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def try_inputs(reader: Reader, inputs: int, random_seed: int = 0) -> Outcome:
    """Reads `inputs` mutations of the reader's seed; any result but a value or a short one-line error is a failure."""
    randomness = random.Random(f"{reader.name} {random_seed}")
    outcome = Outcome()
    for _ in range(inputs):
        data = mutate(reader.seed, randomness)
        started = time.perf_counter()
        try:
            reader.read(data)
            outcome.loaded += 1
        except QuickfoxError as error:
            outcome.refused += 1
            if "\n" in str(error) or len(str(error)) > 1000:
                outcome.failures.append(f"{data[:300]!r}: a message of {len(str(error))} characters: {error!s:.300}")
        except Exception as error:
            outcome.failures.append(f"{data[:300]!r}: {type(error).__name__}: {error!s:.300}")
        outcome.slowest_seconds = max(outcome.slowest_seconds, time.perf_counter() - started)
    return outcome


def _span(data: bytes, randomness: random.Random, longest: int = 32) -> tuple[int, int]:
    start = randomness.randint(0, len(data))
    return start, min(len(data), start + randomness.randint(0, longest))


def _flip(data: bytes, randomness: random.Random) -> bytes:
    return flip_bit(data, randomness.randrange(8 * len(data))) if data else data


def _cut(data: bytes, randomness: random.Random) -> bytes:
    return data[: randomness.randint(0, len(data))]


def _delete(data: bytes, randomness: random.Random) -> bytes:
    start, stop = _span(data, randomness)
    return data[:start] + data[stop:]


def _duplicate(data: bytes, randomness: random.Random) -> bytes:
    start, stop = _span(data, randomness, longest=200)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(data: bytes, randomness: random.Random) -> bytes:
    start, _ = _span(data, randomness)
    return data[:start] + randomness.randbytes(randomness.randint(1, 8)) + data[start:]


def _splice(data: bytes, randomness: random.Random) -> bytes:
    start, stop = _span(data, randomness, longest=4)
    return data[:start] + randomness.choice(HOSTILE_VALUES) + data[stop:]


def _replace_value(data: bytes, randomness: random.Random) -> bytes:
    places = [match.span() for match in _JSON_SCALAR.finditer(data)]
    if not places:
        return data
    start, stop = randomness.choice(places)
    return data[:start] + randomness.choice(HOSTILE_VALUES) + data[stop:]


_MUTATIONS = (_flip, _cut, _delete, _duplicate, _insert, _splice, _replace_value, _replace_value, _replace_value)

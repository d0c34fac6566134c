"""The files of checkpoints and runs, and their readers, which get mutated contents; see mutations.py."""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mutations import Reader
from quickfox.checkpoints.checkpoint import ModelBundle, TrainingState, load_model, load_training_state, save_checkpoint
from quickfox.checkpoints.manifest import MANIFEST_NAME, MODEL_FILES, TRAINING_FILES, Manifest, digest, format_manifest
from quickfox.checkpoints.run_directory import RUN_FILE
from quickfox.config.model import ModelConfig
from quickfox.config.schema import from_dict, to_dict
from quickfox.files.json import format_json
from quickfox.models.parameters import parameter_shapes
from quickfox.models.registry import build_language_model
from quickfox.report.loading import load_run
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.build import build_tokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from quickfox.tokenizers.serialization import format_tokenizer, load_tokenizer
from quickfox.training.engine.progress import Progress
from quickfox.training.run.history import HISTORY_FILE, describe_history, read_history, truncate_history
from quickfox.training.run.record import CorpusRecord, RunRecord, read_record, write_record
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
VALIDATION = {
    "event": "validation", "step": 3, "total_steps": 8, "epoch": 0.5, "tokens": 64, "train_loss": 2.5,
    "validation_loss": None, "learning_rate": 0.01, "seconds": 0.25, "samples": [{"prompt": "a", "text": "b"}],
}  # fmt: skip
EVENTS = (
    VALIDATION,
    {"event": "replan", "step": 4, "total_steps": 9},
    {"event": "step", "step": 5, "train_loss": 2.25, "learning_rate": 0.01, "seconds": 0.5},
    VALIDATION | {"step": 8, "validation_loss": 1.5},
)
HISTORY = b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)
RECORD_VERSION_1 = format_json({"format_version": 1, **dataclasses.asdict(RECORD)})
"""Without a digest, which would refuse every change."""


def build_run(run: Path) -> Path:
    """Creates a run with one resumable checkpoint; returns the checkpoint."""
    checkpoint = run / "checkpoints" / f"step-{STEP:08d}"
    save_checkpoint(checkpoint, BUNDLE, STATE)
    return checkpoint


def file_readers(run: Path) -> list[Reader]:
    """The readers of what the program writes. They use the run directory `run`, which must not exist, in turn."""
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
        *run_readers(run),
    ]


def run_readers(run: Path) -> list[Reader]:
    """The readers of `run.json` and `history.jsonl`, and what the report reads of a run."""

    def read_run(data: bytes) -> object:
        overwrite(run / RUN_FILE, data)
        return read_record(run), load_run(run, 1)

    def read_lines(data: bytes) -> object:
        overwrite(run / HISTORY_FILE, data)
        described = describe_history(read_history(run))
        return described, truncate_history(run, STEP)

    write_record(run, RECORD)
    record = (run / RUN_FILE).read_bytes()
    checked = b"".join(with_valid_crc(line) + b"\n" for line in HISTORY.splitlines())
    return [
        Reader("run.json", record, read_run),
        Reader("run.json with a valid sha256", record, lambda data: read_run(with_valid_sha256(data))),
        Reader("run.json of version 1", RECORD_VERSION_1, read_run),
        Reader("history.jsonl", checked, read_lines),
        Reader(
            "history.jsonl with valid checksums",
            checked,
            lambda data: read_lines(b"\n".join(map(with_valid_crc, data.split(b"\n")))),
        ),
        Reader("history.jsonl of version 1", HISTORY, read_lines),
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


def with_valid_crc(line: bytes) -> bytes:
    """The line of a history with the CRC-32 of its content; unchanged if it is not a JSON object."""
    try:
        event = json.loads(line)
        event.pop("crc32", None)
        return json.dumps({**event, "crc32": f"{zlib.crc32(json.dumps(event).encode()):08x}"}).encode()
    except (AttributeError, TypeError, ValueError, RecursionError):
        return line


def with_valid_sha256(manifest: bytes) -> bytes:
    """The manifest with the sha256 of its content; unchanged if it is not a JSON object."""
    try:
        body = json.loads(manifest)
        body.pop("sha256", None)
        return format_json({**body, "sha256": digest(format_json(body)).sha256})
    except (AttributeError, TypeError, ValueError, RecursionError):
        return manifest

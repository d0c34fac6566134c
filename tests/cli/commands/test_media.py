"""Pictures as prompts from corpus to answer: one run for all tests that only read it; and faults of what is given."""

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

import quickfox
from quickfox.checkpoints.checkpoint import load_model
from signal_files import picture, picture_header, tone, wav, write_silence

Llm = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow not installed")
pytest.importorskip("PIL", reason="pictures need Pillow")

CORNERS = ("top left", "top right", "bottom left", "bottom right")
SMALL = (
    "--hidden-dim",
    32,
    "--embedding-dim",
    16,
    "--batch-size",
    16,
    "--dropout",
    0,
    "--random-seed",
    1,
    "--threads",
    2,
)
STEPS = 240


def drawing(corner: int, seed: int) -> np.ndarray:
    """A bright square in a corner of 8 x 8 pixels of noise."""
    pixels = np.random.default_rng(seed).integers(0, 60, size=(8, 8))
    row, column = divmod(corner, 2)
    pixels[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 190
    return pixels


def write_examples(folder: Path, name: str, seeds: range) -> None:
    lines = []
    for seed in seeds:
        (folder / f"{seed}.png").write_bytes(picture(drawing(seed % 4, seed)))
        question = "color? " if seed % 3 == 0 else "where? "
        answer = "grey" if seed % 3 == 0 else CORNERS[seed % 4]
        lines.append(json.dumps({"image": f"{seed}.png", "prompt": question, "completion": answer}) + "\n")
    (folder / name).write_text("".join(lines))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, run_llm: Llm) -> Path:
    """A folder with pictures, training.jsonl, held-out.jsonl, and a run on the former in runs/training."""
    folder = tmp_path_factory.mktemp("media")
    write_examples(folder, "training.jsonl", range(240))
    write_examples(folder, "held-out.jsonl", range(300, 348))
    trained = run_llm("train", "training.jsonl", "--steps", STEPS, *SMALL, "--json", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["best_validation_loss"] < 0.05
    return folder


def test_a_toy_task_is_learned_and_the_control_fails(home: Path, run_llm: Llm) -> None:
    measured = run_llm("evaluate", "held-out.jsonl", "--control", "--json", cwd=home)
    assert measured.returncode == 0, measured.stderr
    values = json.loads(measured.stdout)
    assert values["exact_match"] == 1.0
    assert values["cer"] == values["wer"] == 0.0
    assert values["nats_per_token"] < 0.05 < values["control_nats_per_token"]
    assert values["control_exact_match"] < 0.75  # a third asks for the color, which all have


def test_answers_about_a_picture(home: Path, run_llm: Llm) -> None:
    """By a file, standard input, beam search, a file of prompts, and arrays in Python."""
    expected = CORNERS[1]
    data = (home / "301.png").read_bytes()
    asked = ("generate", "--seed", "where? ", "--image")
    assert run_llm(*asked, "301.png", cwd=home).stdout == f"{expected}\n"
    assert run_llm(*asked, "301.png", "--num-beams", 3, cwd=home).stdout == f"{expected}\n"
    assert run_llm(*asked, "-", input=data, cwd=home).stdout == f"{expected}\n"
    (home / "prompts.jsonl").write_text(json.dumps({"image": "301.png", "prompt": "where? ", "id": 5}) + "\n")
    answer = json.loads(run_llm("generate", "--prompts", "prompts.jsonl", cwd=home).stdout)
    assert (answer["id"], answer["text"]) == (5, expected)
    model = quickfox.load(home / "runs" / "training")
    pixels = drawing(1, 301).astype(np.uint8)
    assert model.generate("where? ", image=pixels) == expected
    assert model.generate("where? ", image=home / "301.png", num_samples=2) == [expected] * 2


def test_score_is_of_the_completion_after_the_picture(home: Path, run_llm: Llm) -> None:
    wrong = {"image": "301.png", "prompt": "where? ", "completion": CORNERS[2]}
    (home / "wrong.jsonl").write_text((home / "held-out.jsonl").read_text() + json.dumps(wrong) + "\n")
    lines = run_llm("score", "wrong.jsonl", cwd=home).stdout.splitlines()
    bits = [float(line.split("\t")[0]) for line in lines]
    assert len(bits) == 49
    assert max(bits[:-1]) < 0.1 < 1 < bits[-1]


def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(home: Path, run_llm: Llm) -> None:
    record = json.loads((home / "runs" / "training" / "run.json").read_text())
    assert record["model"]["image"]["patch_size"] == 2
    assert record["model"]["architecture"] == "attention-rnn"
    assert "no_augmentation" not in record["training"]
    half, whole = home / "half", home / "runs" / "training"
    arguments = ("training.jsonl", *SMALL, "--checkpoint-every", STEPS // 2, "--output", half)
    started = run_llm("train", *arguments, "--steps", STEPS, cwd=home)
    assert started.returncode == 0, started.stderr
    for checkpoint in sorted((half / "checkpoints").iterdir())[1:]:
        shutil.rmtree(checkpoint)
    resumed = run_llm("train", half, "--resume", cwd=home)
    assert resumed.returncode == 0, resumed.stderr
    last = f"checkpoints/step-{STEPS:08}/model.safetensors"
    assert (half / last).read_bytes() == (whole / last).read_bytes()


def test_changed_pictures_are_noticed(home: Path, run_llm: Llm, tmp_path: Path) -> None:
    write_examples(tmp_path, "few.jsonl", range(20))
    assert run_llm("train", "few.jsonl", "--steps", 1, "--keep-tokens", *SMALL, cwd=tmp_path).returncode == 0
    (tmp_path / "3.png").write_bytes(picture(drawing(0, 99)))
    resumed = run_llm("train", "--resume", "--steps", 2, cwd=tmp_path)
    assert resumed.returncode == 65
    assert "has changed" in resumed.stderr
    repeated = run_llm("train", "few.jsonl", "--config", "runs/few", "--output", "again", cwd=tmp_path)
    assert (repeated.returncode, "pictures are not those of runs/few" in repeated.stderr) == (65, True), repeated.stderr
    (tmp_path / "3.png").unlink()
    resumed = run_llm("train", "--resume", "--steps", 2, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "3.png: no such file: the run goes on from its tokens" in resumed.stderr


def test_pictures_after_text_keep_the_embedding(home: Path, run_llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": f"{corner} grey"}) + "\n" for corner in CORNERS))
    text = ("train", "text.jsonl", "--steps", 1, "--ngram", "off", "--validation-split", 0, *SMALL)
    result = run_llm(*text, "--window", 8, "--output", tmp_path / "text", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run_llm(
        "train", home / "training.jsonl", "--init-from", tmp_path / "text", "--freeze-embeddings", "--steps", 1,
        "--batch-size", 16, "--random-seed", 1, "--threads", 2, "--no-augmentation", "--output", tmp_path / "both",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    before, after = (load_model(next((tmp_path / name / "checkpoints").iterdir())) for name in ("text", "both"))
    ids = [model.tokenizer.encode("top")[0] for model in (before, after)]
    np.testing.assert_array_equal(
        *(m.parameters["embedding.weight"][i] for m, i in zip((before, after), ids, strict=True))
    )
    assert after.config.image is not None
    assert before.config.image is None
    assert "image" not in (next((tmp_path / "text" / "checkpoints").iterdir()) / "config.json").read_text()


FAULTS = [
    ({"image": "none.png", "completion": "a"}, 66, "line 2: none.png: no such file"),
    ({"image": "broken.png", "completion": "a"}, 65, "line 2: broken.png: damaged picture"),
    ({"image": "sound.wav", "completion": "a"}, 65, "line 2: sound.wav: not a picture"),
    ({"audio": "sound.wav", "completion": "a"}, 65, "line 2: names sound in a corpus with pictures"),
    ({"image": ".", "completion": "a"}, 74, "Is a directory"),
    ({"image": "large.png", "completion": "a"}, 65, "line 2: large.png: the picture has more than 33,554,432 pixels"),
    ({"image": 5, "completion": "a"}, 65, "line 2: 'image' must be the name of a file"),
    ({"image": "0.png", "audio": "sound.wav", "completion": "a"}, 65, "line 2: 'audio' and 'image' exclude each other"),
    ({"image": "0.png", "completion": 3}, 65, "line 2: 'completion' must be a string"),
    ({"image": "0.png", "completion": ""}, 65, "line 2: the document is empty"),
]


@pytest.mark.parametrize(("value", "status", "message"), FAULTS)
def test_faults_of_a_corpus(llm: Llm, tmp_path: Path, value: dict[str, object], status: int, message: str) -> None:
    (tmp_path / "0.png").write_bytes(picture(drawing(0, 0)))
    (tmp_path / "broken.png").write_bytes(picture(drawing(0, 0))[:60])
    (tmp_path / "sound.wav").write_bytes(wav(tone(440, 0.1)))
    (tmp_path / "large.png").write_bytes(picture_header(20_000, 20_000))
    lines = [{"image": "0.png", "completion": "a"}, value]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = llm("train", "x.jsonl", "--steps", 1, "--validation-split", 0, *SMALL)
    assert (result.returncode, len(result.stderr.splitlines())) == (status, 1), result.stderr
    assert message in result.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_an_hour_of_sound_is_refused(llm: Llm, tmp_path: Path) -> None:
    write_silence(tmp_path / "hour.wav", 3600)
    (tmp_path / "x.jsonl").write_text(json.dumps({"audio": "hour.wav", "completion": "a"}) + "\n")
    result = llm("train", "x.jsonl", "--steps", 1, "--validation-split", 0, *SMALL)
    message = "llm: x.jsonl, line 1: hour.wav: 3,600 s of sound are more than 60 s: divide it\n"
    assert (result.returncode, result.stderr) == (65, message)


COMMANDS = [
    (("serve", "runs/training", "--port", 0), 65, "the model reads pictures, which requests cannot carry"),
    (("export", "runs/training", "--format", "keras", "-o", "k"), 2, "the model reads pictures, for which no format"),
    (("inspect", "held-out.jsonl", "--gates"), 65, "held-out.jsonl: names pictures, and `llm inspect` reads text only"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), COMMANDS)
def test_commands_that_read_no_pictures(
    home: Path, run_llm: Llm, arguments: tuple[object, ...], status: int, message: str
) -> None:
    result = run_llm(*arguments, cwd=home)
    failures = [line for line in result.stderr.splitlines() if line.startswith("llm: ")]
    assert (result.returncode, len(failures)) == (status, 1), result.stderr
    assert message in failures[0]


def test_a_report_has_the_curves_of_a_run_on_pictures(home: Path, run_llm: Llm) -> None:
    result = run_llm("report", "runs/training", "-o", "report.html", cwd=home)
    assert result.returncode == 0, result.stderr
    page = (home / "report.html").read_text()
    assert "The model reads pictures, after which a report does not examine it" in page
    assert "<h2>Curves</h2>" in page


def test_a_model_of_text_reads_no_pictures(home: Path, run_llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "top left"}\n' * 4)
    options = ("--steps", 1, "--ngram", "off", "--validation-split", 0, "--window", 8)
    assert run_llm("train", "text.jsonl", *options, *SMALL, cwd=tmp_path).returncode == 0
    for arguments, status, message in (
        (("evaluate", home / "held-out.jsonl"), 65, "line 1: names pictures, and the model reads text only"),
        (("score", home / "held-out.jsonl"), 65, "the model reads text only"),
        (("generate", "--image", home / "301.png"), 2, "the model reads text only: leave --image out"),
    ):
        result = run_llm(*arguments, cwd=tmp_path)
        assert (result.returncode, message in result.stderr.splitlines()[-1]) == (status, True), result.stderr


def test_a_path_may_leave_the_folder_of_a_file_but_not_an_archive(llm: Llm, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture(drawing(0, 0)))
    line = json.dumps({"image": "../0.png", "completion": "a"}) + "\n"
    inner = tmp_path / "folder"
    inner.mkdir()
    (inner / "x.jsonl").write_text(line * 4)
    options = ("--steps", 1, "--validation-split", 0, "--dry-run", *SMALL)
    assert llm("train", "folder/x.jsonl", *options).returncode == 0
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x.jsonl", line * 4)
    result = llm("train", "x.zip/x.jsonl", *options)
    assert result.returncode == 65, result.stderr
    assert "x.jsonl, line 1: '../0.png' is outside the archive" in result.stderr
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("a/x.jsonl", line * 4)
        archive.writestr("0.png", (tmp_path / "0.png").read_bytes())
    result = llm("train", "y.zip/a/x.jsonl", *options)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--seed", "where? "), 2, "the model reads pictures: give --image"),
        (("--audio", "301.png"), 2, "the model reads pictures: leave --audio out"),
        (("--image", "none.png"), 66, "none.png: no such file"),
        (("--image", "301.png", "--prompts", "p.jsonl"), 2, "exclude each other"),
        (("--prompts", "audio.jsonl"), 65, "audio.jsonl line 1: names sound, and the model reads pictures"),
    ],
)
def test_faults_of_prompts(home: Path, run_llm: Llm, arguments: tuple[str, ...], status: int, message: str) -> None:
    (home / "audio.jsonl").write_text('{"audio": "x.wav"}\n')
    result = run_llm("generate", *arguments, cwd=home)
    assert result.returncode == status, result.stderr
    assert message in result.stderr


def test_n_grams_do_not_read_pictures(home: Path, run_llm: Llm) -> None:
    result = run_llm("train", "training.jsonl", "--ngram", 3, "--steps", 1, "--output", "other", cwd=home)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert not (home / "other").exists()

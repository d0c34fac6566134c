"""Sound and pictures as prompts: a training run and its held-out part, with and without the right signals.

usage: python benchmarks/media.py NAME --output DIR [--budget 60s] [OPTION OF LLM TRAIN ...]

    digits     handwritten digits, 8 x 8                        pip install scikit-learn
    fashion    Fashion-MNIST, 28 x 28                           apt-get install dataset-fashion-mnist
    numbers    numbers of 1 to 4 digits by espeak-ng,           apt-get install espeak-ng
               a fifth of the voice variants held out
    asterisk   strings of digits from one speaker's recordings  apt-get install asterisk-core-sounds-en-wav
    fillets    acted Dutch speech                               apt-get install fillets-ng-data-nl fillets-ng-data
                                                                espeak-ng
    shapes     questions about pictures that are drawn here

Fetches nothing: the data are those of the installed packages. The folder keeps them for the next run.
"""

import argparse
import gzip
import io
import json
import random
import re
import subprocess
import sys
import time
import wave
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from measuring import report, run_json
from number_words import in_words

RANDOM_SEED = 1
FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ["top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
ASTERISK = Path("/usr/share/asterisk/sounds/en_US_f_Allison/digits")
FILLETS = Path("/usr/share/games/fillets-ng")
SHAPES, COLORS = ("circle", "square", "triangle"), ("red", "green", "blue", "yellow")

Example = dict[str, str]
Split = tuple[list[Example], list[Example]]


def make_digits(folder: Path) -> Split:
    """The last tenth of the pictures of scikit-learn is held out, as they are in the order of their writers."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    examples = []
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{number}.png")
        examples.append({"image": f"{number}.png", "completion": str(label)})
    held_out = len(examples) // 10
    return examples[:-held_out], examples[-held_out:]


def make_fashion(folder: Path) -> Split:
    """The test part of the data set is held out."""
    parts = []
    for part in ("train", "t10k"):
        with gzip.open(FASHION / f"{part}-images-idx3-ubyte.gz") as file:
            pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(FASHION / f"{part}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        examples = []
        for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            Image.fromarray(picture).save(folder / f"{part}-{number}.png", compress_level=1)
            examples.append({"image": f"{part}-{number}.png", "completion": FASHION_CLASSES[label]})
        parts.append(examples)
    return parts[0], parts[1]


def list_variants() -> list[str]:
    """The variants of espeak-ng's voices, in a random order."""
    listed = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    variants = sorted(re.findall(r"!v/(\S+(?: \S+)*)", listed))
    random.Random(RANDOM_SEED).shuffle(variants)
    return variants


def speak(folder: Path, jobs: list[tuple[str, str]]) -> list[Example]:
    """Texts spoken by espeak-ng, each given with its voice."""

    def run(number: int, voice: str, text: str) -> Example:
        name = f"{voice.replace('/', '-')}-{number}.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", folder / name, "--", text], check=True)
        return {"audio": name, "completion": text}

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, range(len(jobs)), *zip(*jobs, strict=True)))


def make_numbers(folder: Path, clips_per_voice: int = 60) -> Split:
    """A fifth of the voice variants is held out."""
    variants, draw = list_variants(), random.Random(RANDOM_SEED)

    def say_numbers(voices: list[str]) -> list[Example]:
        values = [(voice, draw.randrange(10 ** draw.randint(1, 4))) for voice in voices for _ in range(clips_per_voice)]
        return speak(folder, [(f"en-us+{voice}", in_words(value).replace("-", " ")) for voice, value in values])

    held_out = say_numbers(variants[: len(variants) // 5])
    return say_numbers(variants[len(variants) // 5 :]), held_out


def make_asterisk(folder: Path, count: int = 4000) -> Split:
    """Strings of 1 to 6 digits with pauses of 0 to 0.2 s; a tenth of the strings is held out."""
    recordings = []
    for value in range(10):
        with wave.open(str(ASTERISK / f"{value}.wav")) as file:
            rate = file.getframerate()
            recordings.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    draw = random.Random(RANDOM_SEED)
    strings = {"".join(draw.choice("0123456789") for _ in range(draw.randint(1, 6))) for _ in range(count)}
    examples = []
    for string in draw.sample(sorted(strings), len(strings)):
        parts: list[Any] = []
        for digit in string:
            parts += [recordings[int(digit)], np.zeros(draw.randrange(rate // 5), np.int16)]
        samples = np.concatenate(parts) * draw.uniform(0.5, 1)
        with wave.open(str(folder / f"{string}.wav"), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        examples.append({"audio": f"{string}.wav", "completion": " ".join(string)})
    return examples[len(examples) // 10 :], examples[: len(examples) // 10]


def make_fillets(folder: Path, voices: int = 5) -> Split:
    """Lines of the game with their recordings; a tenth is held out. Those of training are also spoken by espeak-ng."""
    import soundfile

    texts: dict[tuple[str, str], str] = {}
    for script in sorted(FILLETS.glob("script/*/dialogs_nl.lua")):
        pattern = r'dialogId\("([^"]+)".*?\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)'
        for name, text in re.findall(pattern, script.read_text(encoding="utf-8"), re.DOTALL):
            texts[script.parent.name, name] = text.replace('\\"', '"').lower()
    examples = []
    for path in sorted(FILLETS.glob("sound/*/nl/*.ogg")):
        text = texts.get((path.parent.parent.name, path.stem))
        if text and soundfile.info(path).frames:  # two recordings of the package are empty
            target = folder / f"{path.parent.parent.name}-{path.name}"
            target.write_bytes(path.read_bytes())
            examples.append({"audio": target.name, "completion": text})
    random.Random(RANDOM_SEED).shuffle(examples)
    training, held_out = examples[len(examples) // 10 :], examples[: len(examples) // 10]
    spoken = [(f"nl+{variant}", each["completion"]) for variant in list_variants()[:voices] for each in training]
    return training + speak(folder, spoken), held_out


def make_shapes(folder: Path, pictures: int = 20_000) -> Split:
    """A description of each picture of 2 or 3 shapes in a row, and two questions about it; a tenth of the pictures is
    held out."""
    draw = random.Random(RANDOM_SEED)
    parts: Split = [], []
    for number in range(pictures):
        shapes = draw.sample(SHAPES, draw.randint(2, 3))
        colors = [draw.choice(COLORS) for _ in shapes]
        draw_shapes(draw, shapes, colors).save(folder / f"{number}.png")
        description = ", ".join(f"a {color} {shape}" for color, shape in zip(colors, shapes, strict=True))
        questions = draw.sample(list(ask(shapes, colors)), 2)
        for question, answer in [("what is there? ", description), *questions]:
            example = {"image": f"{number}.png", "prompt": question, "completion": answer}
            parts[number < pictures // 10].append(example)
    return parts


def draw_shapes(draw: random.Random, shapes: list[str], colors: list[str]) -> Image.Image:
    """A picture of 48 x 20 pixels."""
    picture = Image.new("RGB", (48, 20), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    columns = sorted(draw.sample(range(3), len(shapes)))
    for column, shape, color in zip(columns, shapes, colors, strict=True):
        size = draw.randint(9, 12)
        left, top = column * 16 + draw.randint(0, 15 - size), draw.randint(0, 19 - size)
        box = (left, top, left + size, top + size)
        if shape == "circle":
            pen.ellipse(box, fill=color)
        elif shape == "square":
            pen.rectangle(box, fill=color)
        else:
            pen.polygon([(left + size / 2, top), (left, top + size), (left + size, top + size)], fill=color)
    return picture


def ask(shapes: list[str], colors: list[str]) -> Iterator[tuple[str, str]]:
    """Questions about a picture, and their answers."""
    for color in COLORS:
        yield f"how many {color}? ", str(colors.count(color))
    for number, shape in enumerate(shapes):
        answer = f"a {colors[number - 1]} {shapes[number - 1]}" if number else "nothing"
        yield f"what is left of the {shape}? ", answer
        yield f"what color is the {shape}? ", colors[number]


def chance(training: list[Example], held_out: list[Example]) -> float:
    """The share of right answers of who knows the most frequent one to each question."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for example in training:
        answers[example.get("prompt", "")][example["completion"]] += 1
    best = {question: counts.most_common(1)[0][0] for question, counts in answers.items()}
    return sum(best.get(example.get("prompt", "")) == example["completion"] for example in held_out) / len(held_out)


MAKERS: dict[str, tuple[Callable[[Path], Split], str]] = {
    "digits": (make_digits, "60s"),
    "fashion": (make_fashion, "5m"),
    "numbers": (make_numbers, "10m"),
    "asterisk": (make_asterisk, "5m"),
    "fillets": (make_fillets, "20m"),
    "shapes": (make_shapes, "5m"),
}


def prepare(name: str, folder: Path) -> Split:
    """The training and held-out examples in `folder`, made if they are not there."""
    paths = folder / "training.jsonl", folder / "held-out.jsonl"
    if not paths[1].exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            parts = MAKERS[name][0](folder)
        except (ImportError, OSError) as error:
            sys.exit(f"{name}: {error}: install the packages that {Path(__file__).name} lists")
        for path, part in zip(paths, parts, strict=True):
            path.write_text("".join(json.dumps(each) + "\n" for each in part), encoding="utf-8")
    training, held_out = ([json.loads(line) for line in io.StringIO(path.read_text("utf-8"))] for path in paths)
    return training, held_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=MAKERS)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data and the run")
    parser.add_argument("--budget", help="wall time of the training command")
    arguments, options = parser.parse_known_args()
    folder, name = arguments.output / arguments.name, arguments.name
    training, held_out = prepare(name, folder)
    run = folder / f"run-{int(time.time())}"
    options = ["--random-seed", "1", *options]
    command = ["llm", "train", str(folder / "training.jsonl"), "--output", str(run), "--json", "--quiet", *options]
    started = time.monotonic()
    trained = run_json([*command, "--budget", arguments.budget or MAKERS[name][1]])
    seconds = time.monotonic() - started
    measured = run_json(["llm", "evaluate", str(folder / "held-out.jsonl"), "--model", str(run), "--control", "--json"])
    shown = ("nats_per_token", "exact_match", "cer", "wer")
    report(
        name=name,
        options=options,
        training_examples=len(training),
        held_out_examples=len(held_out),
        seconds=round(seconds, 1),
        steps=trained["steps"],
        parameters=trained["parameters"],
        chance=round(chance(training, held_out), 4),
        measured={key: round(measured[key], 4) for key in shown},
        control={key: round(measured[f"control_{key}"], 4) for key in shown},
    )


if __name__ == "__main__":
    main()

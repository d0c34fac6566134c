"""The report as a page: what it contains, that nothing in it is markup of others, and how a browser shows it."""

import re
import warnings
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from browser import Browser, chromium
from quickfox.report.page import render_report
from quickfox.training.engine.events import Sample
from written_runs import TEXT, write_run

TAGS = set(
    "html head meta title style body header h1 h2 h3 p main section div span b i small mark table caption thead "  # noqa: SIM905
    "tbody tr th td figure figcaption svg g path line text circle rect clippath pre input label footer".split()
)
SECTIONS = (
    "Diagnosis",
    "Curves",
    "The same prompts, while it learns",
    "Against simple models",
    "Easiest and hardest passages",
    "Which characters are hard",
    "Calibration",
    "Embedding",
    "Copies of the corpus",
    "Settings",
)
VOID = {"meta", "input"}

CHINESE = "天地玄黃，宇宙洪荒。\n日月盈昃，辰宿列張。\n" * 60
RIGHT_TO_LEFT = "שלום עולם\nمرحبا بالعالم 12\n" * 60

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """The tags, headings and text of a page, which fails if they are not nested properly."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.headings: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self._open:
            self.words += data


def test_a_report_of_a_run_has_all_sections(make_run: MakeRun) -> None:
    page = Page(render_report([make_run()]))
    assert tuple(page.headings) == SECTIONS
    for text in ("Under-training", "2.5000", "<b>prompt</b>", "uniform", "gzip", "hidden dim", "llm train --resume"):
        assert text in page.words


def test_texts_file_names_and_prompts_are_escaped(make_run: MakeRun) -> None:
    html = render_report([make_run("run <img src=x>")])
    page = Page(html)
    assert page.tags <= TAGS
    assert "run <img src=x>" in page.words
    assert "corpus <em>.txt" in page.words
    assert "script" in page.words
    assert not re.search(r"<(script|em|img|i>text)", html)


def test_nothing_is_loaded_from_elsewhere(make_run: MakeRun) -> None:
    html = render_report([make_run()])
    assert not re.search(r"https?://|@import|url\((?!#)|<link", html)


def test_control_characters_are_visible(make_run: MakeRun) -> None:
    page = Page(render_report([make_run(samples=(Sample("a", "\x00\x1b[31m"),))]))
    assert "␀␛[31m" in page.words


@pytest.mark.parametrize("text", [CHINESE, RIGHT_TO_LEFT])
def test_any_writing_system_is_shown_in_its_direction(make_run: MakeRun, text: str) -> None:
    html = render_report([make_run(text=text, samples=(Sample(text[:4], text[4:9]),))])
    page = Page(html)
    assert tuple(page.headings) == SECTIONS
    assert text[4:9] in page.words
    assert 'dir="auto"' in html


def test_ten_thousand_validations_are_thinned(make_run: MakeRun) -> None:
    run = make_run(losses=(2.0,), samples=())
    history = run / "history.jsonl"
    line = re.sub(', "crc32": "[^"]*"', "", history.read_text().splitlines()[-1])  # as in earlier versions
    lines = [line.replace('"step": 10,', f'"step": {10 * number},') for number in range(1, 10_001)]
    history.write_text("\n".join(lines) + "\n")
    html = render_report([run])
    assert "Validations: 12 of 10,000" in Page(html).words
    assert len(html) < 2**19


def test_a_run_without_validations_or_samples_says_so(make_run: MakeRun) -> None:
    run = make_run(losses=())
    page = Page(render_report([run]))
    assert "no validation and no recorded step yet" in page.words
    assert "The history of this run has no samples." in page.words
    assert "Nothing to judge by" in page.words
    assert "Easiest and hardest passages" in page.headings


def test_one_validation_is_a_point(make_run: MakeRun) -> None:
    assert "Validations: 1 of 1" in Page(render_report([make_run(losses=(2.0,))])).words


def test_unknown_characters_of_the_held_out_text_have_a_surprisal(make_run: MakeRun) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        page = Page(render_report([make_run(text=TEXT + "Größe\n" * 20, left_out="öß")]))
    assert "Calibration" in page.headings
    assert not re.search(r"\b(inf|nan)\b", page.words)


def test_without_held_out_text_the_report_says_so(make_run: MakeRun) -> None:
    page = Page(render_report([make_run(split=0.0, losses=(None,))]))
    assert "No text was held out" in page.words
    assert "Copies of the corpus" in page.headings
    assert "Calibration" not in page.headings


def test_without_its_corpus_the_report_says_so(make_run: MakeRun) -> None:
    run = make_run()
    (run.parent / "corpus <em>.txt").unlink()
    page = Page(render_report([run]))
    assert "The text of the run cannot be read" in page.words
    assert "Curves" in page.headings
    (run.parent / "corpus <em>.txt").write_text("another text\n" * 100)
    assert "the text has changed" in Page(render_report([run])).words


def test_damaged_checkpoints_and_histories_are_reported(make_run: MakeRun) -> None:
    run = make_run()
    [weights] = run.glob("checkpoints/*/model.safetensors")
    weights.write_bytes(b"damaged")
    (run / "history.jsonl").write_text("[]\n")
    page = Page(render_report([run]))
    assert "There is no model to examine" in page.words
    assert "The history of the run is damaged" in page.words
    assert {"Diagnosis", "Settings"} <= set(page.headings)


def test_several_runs_are_compared(make_run: MakeRun) -> None:
    runs = [make_run("first"), make_run("second", hidden_dim=7), make_run("third", losses=())]
    page = Page(render_report(runs))
    assert page.headings == ["Best by bits per byte", "Curves", "Settings that differ"]
    assert re.search(r"[+-]\d\.\d{4} \([+-]\d\.\d{4} to [+-]\d\.\d{4}\)", page.words)
    assert "hidden dim" in page.words
    assert "batch size" not in page.words


def test_runs_on_other_texts_have_no_paired_difference(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    runs = [
        write_run(tmp_path / "a", "run"),
        write_run(tmp_path / "b", "run", text="Another text, of other words.\n" * 90),
    ]
    assert "another held-out text" in Page(render_report(runs)).words


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_browser_shows_the_report_without_a_message_request_or_violation(
    browser: Browser, make_run: MakeRun, tmp_path: Path, count: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_report([make_run(f"run-{number}") for number in range(count)]), encoding="utf-8")
    for width, dark in ((1400, False), (380, True)):
        browser.open(path.as_uri(), width, dark=dark)
        assert (browser.console_messages(), browser.requests(), browser.overflow()) == ([], [], 0)
        assert browser.violations() == []
    [label] = browser.driver.find_elements("css selector", "label[for=axis-seconds]")
    label.click()
    shown = browser.driver.find_elements("css selector", ".by-steps, .by-seconds")
    assert [panel.is_displayed() for panel in shown] == [False, True]

"""The page: what it is made of, and what a browser does with it."""

import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import quickfox
from browser import Browser, chromium
from ngram_models import ngram_bundle
from quickfox.checkpoints.checkpoint import save_checkpoint
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.training.engine.events import Sample
from running_server import TIMEOUT, RunningServer, run_server
from serving_page import Page
from written_runs import write_run

PROMPT = "The <b>quick</b>\nfox's "
SETTINGS: dict[str, Any] = {"max_tokens": 40, "seed": 7}
SAMPLES = (Sample("<b>prompt</b>", "<i>text</i>"), Sample("The ", "fox"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run runs/fox, whose text has the characters of PROMPT."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs").mkdir()
    write_run(folder / "runs", "fox", samples=SAMPLES, text=f"{PROMPT} jumps over the lazy dog.\n" * 60)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path, model_directory: Path) -> Iterator[RunningServer]:
    """A server of the run "fox" and the model "random"."""
    with run_server(folder / "runs" / "fox", model_directory) as running:
        yield running


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def expected_texts(folder: Path, prompt: str, count: int, **options: Any) -> list[str]:
    """The continuations that `llm generate` prints."""
    return quickfox.load(folder / "runs" / "fox").generate(prompt, num_samples=count, echo=False, **options)


def test_the_policy_allows_the_script_and_the_style_of_the_page_and_nothing_from_elsewhere(
    running: RunningServer,
) -> None:
    connection = HTTPConnection("127.0.0.1", running.port, timeout=TIMEOUT)
    connection.request("GET", "/")
    response = connection.getresponse()
    policy, html = response.headers["content-security-policy"], response.read().decode()
    connection.close()
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert set(re.findall(r"https?://[^'\"\s]+", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\son[a-z]+=|\sstyle=|@import|\burl\(", html)


def test_the_history_of_a_run_has_its_losses_and_samples(running: RunningServer) -> None:
    status, history = running.request("/v1/models/fox/history")
    assert status == 200
    assert [(each["step"], each["validation_loss"]) for each in history["validations"]] == [
        (10, 2.5),
        (20, 2.0),
        (30, 1.9),
    ]
    assert history["steps"][0]["train_loss"] == pytest.approx(2.99)
    assert history["validations"][0]["samples"][0] == {"prompt": "<b>prompt</b>", "text": "<i>text</i>"}
    assert running.request("/v1/models/random/history")[1] == {
        "object": "history",
        "model": "random",
        "steps": [],
        "validations": [],
    }
    assert running.request("/v1/models/nothing/history")[0] == 404


@pytest.mark.slow
def test_texts_are_those_of_generate_and_of_the_commands_shown(
    opened: Browser, running: RunningServer, folder: Path
) -> None:
    page = Page(opened, running.url)
    page.generate(prompt=PROMPT, n=3, temperature=0.9, top_k=5, top_p=0.95, min_p=0.01, **SETTINGS)
    options = {"length": 40, "random_seed": 7, "temperature": 0.9, "top_k": 6, "top_p": 0.95, "min_p": 0.01}
    expected = expected_texts(folder, PROMPT, 3, **options)
    assert page.texts() == expected
    assert {note.text for note in page.all(".panel-foot .quiet")} == {"seed 7"}
    command = shlex.split(page.content("#command"))
    program = [sys.executable, "-P", "-c", "from quickfox.cli.app import main; main()"]
    printed = subprocess.run([*program, *command[1:], "--json"], cwd=folder, capture_output=True, timeout=TIMEOUT)
    assert [json.loads(line)["text"] for line in printed.stdout.splitlines()] == [PROMPT + text for text in expected]
    curl = shlex.split(page.content("#curl"))
    assert curl[:2] == ["curl", f"{running.url}v1/completions"]
    if shutil.which("curl"):
        answer = subprocess.run([*curl, "-s", "--noproxy", "*"], capture_output=True, timeout=TIMEOUT).stdout
        assert [choice["text"] for choice in json.loads(answer)["choices"]] == expected


@pytest.mark.slow
def test_without_a_seed_the_one_that_was_used_is_shown_and_can_be_used_again(
    opened: Browser, running: RunningServer
) -> None:
    page = Page(opened, running.url)
    page.generate(prompt="The ", max_tokens=30, n=2)
    former = page.texts()
    seed = page.one(".panel-foot .quiet").text.removeprefix("seed ")
    assert f"--random-seed {seed} " in page.content("#command")
    page.all(".panel-foot button")[0].click()
    assert page.one("#seed").get_property("value") == seed
    page.generate()
    assert page.texts() == former


@pytest.mark.slow
def test_pointing_at_a_token_shows_its_alternatives_and_a_click_goes_on_from_one(
    opened: Browser, running: RunningServer, folder: Path
) -> None:
    page = Page(opened, running.url)
    page.generate(prompt="The ", n=2, temperature=1, **SETTINGS)
    first, second = page.texts()
    page.point_at(page.all("#token-1-9")[0])
    shares = [each.text for each in page.all(".alternative .share")]
    assert len(shares) in (8, 9)
    assert sum(float(share.strip("< %")) for share in shares) <= 101
    assert page.one(".alternative[aria-current]").get_property("disabled")
    other = page.one(".alternative:enabled")
    taken = other.find_element("css selector", ".glyphs").text.replace("␣", " ").replace("↵", "\n")
    other.click()
    page.wait_until_complete()
    head = second[:9] + taken
    assert taken != second[9]
    expected = expected_texts(folder, f"The {head}", 1, length=40, random_seed=7, temperature=1.0)
    assert page.texts() == [first, head + expected[0]]
    assert page.one(".taken").get_property("id") == "token-1-9"


@pytest.mark.slow
def test_characters_of_several_tokens_are_one_token_of_the_page(opened: Browser, tmp_path: Path) -> None:
    bundle = ngram_bundle(ByteTokenizer(), "天地玄黃宇宙洪荒。\n" * 20, 6)
    save_checkpoint(tmp_path / "bytes", bundle, None)
    with run_server(tmp_path / "bytes") as served:
        page = Page(opened, served.url)
        page.generate(prompt="天", temperature=0, **SETTINGS)
        expected = quickfox.load(tmp_path / "bytes").generate("天", echo=False, length=40, temperature=0)
        assert page.texts() == [expected]
        tokens = [token.get_property("textContent") for token in page.all("[role=option]")]
        assert tokens == list(expected)
        page.point_at(page.all("[role=option]")[1])
        enabled = [each.text for each in page.all(".alternative:enabled .glyphs")]
        disabled = [each.text for each in page.all(".alternative:disabled .glyphs")]
        assert "\ufffd" in disabled  # a part of a character is no text to go on from
        assert "\ufffd" not in enabled


@pytest.mark.slow
def test_the_keyboard_alone_generates_and_takes_an_alternative(opened: Browser, running: RunningServer) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(opened, running.url)
    page.wait_until_ready()
    page.fill(**SETTINGS)
    page.one("#prompt").send_keys("The ", Keys.CONTROL, Keys.ENTER)
    page.wait_until_complete()
    [former] = page.texts()
    page.press(Keys.TAB, Keys.TAB)  # of the buttons, only the one that generates is enabled
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert page.one(".tokens").get_attribute("aria-activedescendant") == "token-0-2"
    page.press(Keys.ENTER, Keys.ARROW_DOWN, Keys.ENTER)
    page.wait_until_complete()
    [text] = page.texts()
    assert text[:2] == former[:2]
    assert text[2] != former[2]
    assert len(text) == 43
    assert page.driver.switch_to.active_element.get_attribute("class") == "tokens"
    page.press(Keys.ESCAPE)
    assert not page.one("#alternatives").is_displayed()


@pytest.mark.slow
def test_stop_ends_the_text_and_its_generation(opened: Browser, running: RunningServer) -> None:
    page = Page(opened, running.url)
    page.wait_until_ready()
    page.fill(prompt="The ", max_tokens=60_000)
    page.one("#generate").click()
    page.wait(lambda: len(page.texts()[0]) > 20)
    page.one("#stop").click()
    page.wait_until_complete()
    assert "stopped" in page.one(".panel-foot .quiet").text
    assert len(page.texts()[0]) < 60_000
    page.wait(lambda: "POST /v1/completions 499" in running.log())


@pytest.mark.slow
def test_errors_and_warnings_are_shown(opened: Browser, running: RunningServer) -> None:
    page = Page(opened, running.url)
    page.generate(prompt="Zebra 漢", **SETTINGS)
    assert "漢" in page.one("#warning").text
    page.generate(prompt="", max_tokens=10**6)
    assert "exceed the limit of 65536 tokens" in page.one("#error").text
    page.generate(**SETTINGS)
    assert not page.one("#error").is_displayed()


@pytest.mark.slow
def test_the_losses_and_samples_of_the_run_are_shown(opened: Browser, running: RunningServer) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(opened, running.url)
    page.wait_until_ready()
    assert page.one("#chart").get_attribute("aria-label") == "Loss: 2.500 at step 10, 1.900 at step 30"
    assert [sample.text for sample in page.all("#samples .text")] == ["<b>prompt</b><i>text</i>", "The fox"]
    page.one("#moment").send_keys(Keys.ARROW_LEFT)
    assert page.one("output[for=moment]").text == "step 20 · 2.000"
    page.one("#model").send_keys("random")
    page.wait(lambda: not page.one("#run").is_displayed())
    assert page.one("output[for=temperature]").text == "0.80"  # saved with the model


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (1400, True), (380, False), (380, True)])
def test_the_page_logs_nothing_and_follows_the_rules_of_accessibility(
    opened: Browser, running: RunningServer, width: int, dark: bool
) -> None:
    page = Page(opened, running.url, width, dark=dark)
    page.generate(prompt=PROMPT, n=2, **SETTINGS)
    page.all("#token-0-5")[0].click()
    assert page.one("#alternatives").is_displayed()
    assert (opened.violations(), opened.overflow(), opened.console_messages()) == ([], 0, [])
    assert {url.startswith(running.url) for url in opened.requests()} == {True}


@pytest.mark.slow
def test_a_server_with_a_key_asks_for_it(opened: Browser, model_directory: Path) -> None:
    with run_server(model_directory, environment={"QUICKFOX_API_KEY": "secret"}) as guarded:
        page = Page(opened, guarded.url)
        page.wait(page.one("#key").is_displayed)
        page.one("#key").send_keys("wrong\n")
        page.wait(lambda: "does not accept" in page.one("#error").text)
        page.one("#key").clear()
        page.one("#key").send_keys("secret\n")
        page.generate(prompt="the ", **SETTINGS)
        assert len(page.texts()[0]) == 40
        assert "secret" not in page.content("#curl")

"""Records docs/serving.png, the page of `llm serve` in a browser.

usage: python docs/record_serving.py RUN PROMPT
RUN is a run, PROMPT the text that the page continues. The browser is that of the tests: Chromium, with Selenium.
"""

import argparse
import sys
from pathlib import Path

from record_session import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from browser import chromium
from running_server import run_server

WIDTH, HEIGHT = 1240, 1120  # pixels of the top of the page
SCALE = 0.62
TEXTS, TOKENS, SEED, TEMPERATURE = 3, 230, 3, 0.7
CURRENT = "token-1-20"
"""The token whose alternatives are shown."""

GENERATE = """
for (const [id, value] of Object.entries(arguments[0])) document.getElementById(id).value = value;
document.getElementById("settings").dispatchEvent(new Event("input"));
document.getElementById("form").requestSubmit();
"""


def main() -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("prompt")
    options = parser.parse_args()
    with run_server(options.run) as server, chromium() as browser:
        browser.open(server.url, WIDTH)
        page, wait = browser.driver, WebDriverWait(browser.driver, 60)
        wait.until(lambda _: page.find_element("id", "generate").is_enabled())
        settings = {"n": TEXTS, "max_tokens": TOKENS, "seed": SEED, "temperature": TEMPERATURE}
        page.execute_script(GENERATE, {"prompt": options.prompt, **settings})
        wait.until(lambda _: not page.find_element("id", "stop").is_enabled())
        ActionChains(page).move_to_element(page.find_element("id", CURRENT)).perform()
        (ROOT / "docs" / "serving.png").write_bytes(browser.picture(WIDTH, HEIGHT, SCALE))


if __name__ == "__main__":
    main()

"""A headless Chromium for tests of pages: what a page logs, requests, violates of the rules of accessibility.

Tests that use it are skipped where Chromium, its driver or the packages of the extra `dev` are missing.
"""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")
LOCAL = ("file:", "data:", "about:", "chrome:", "chrome-extension:")


class Browser:
    """A page in headless Chromium.

    Attributes:
        driver: the driver of Selenium, to click, type and read.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, width: int = 1400, *, dark: bool = False) -> None:
        """Opens a page in a window of `width` pixels, in the light or the dark scheme."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def console_messages(self) -> list[str]:
        """What the page logged since it was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page requested since it was opened, other than local ones."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(LOCAL)]

    def violations(self) -> list[str]:
        """The rules of accessibility, of axe-core, that the page violates, with the first element of each."""
        script = resources.files(pytest.importorskip("axe_core_python")).joinpath("axe.min.js")
        self.driver.execute_script(script.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script("axe.run().then(result => arguments[0](result.violations))")
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]

    def overflow(self) -> int:
        """Number of pixels by which the page is wider than the window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def picture(self, width: int, height: int, scale: float) -> bytes:
        """The top of the page, of this size in pixels, as a PNG file enlarged by `scale`."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
        settings = {"clip": clip, "captureBeyondViewport": True}
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", settings)["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts a headless Chromium, or skips the test where it cannot be started."""
    selenium = pytest.importorskip("selenium.webdriver")
    driver_path = shutil.which("chromedriver")
    if CHROMIUM is None or driver_path is None:
        pytest.skip("Chromium and its driver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(driver_path))
    try:
        yield Browser(driver)
    finally:
        driver.quit()

"""The page of `llm serve` in a browser, as its user sees it."""

from collections.abc import Callable
from typing import Any

from browser import Browser
from running_server import TIMEOUT


class Page:
    """The page in a browser."""

    def __init__(self, browser: Browser, url: str, width: int = 1400, *, dark: bool = False) -> None:
        self.browser = browser
        self.driver = browser.driver
        browser.open(url, width, dark=dark)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def content(self, selector: str) -> str:
        """The text as it is in the document."""
        return str(self.one(selector).get_property("textContent"))

    def wait(self, condition: Callable[[], Any]) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, TIMEOUT, poll_frequency=0.05).until(lambda _: condition())

    def fill(self, **values: object) -> None:
        """Sets controls, named by their ids, as a user does."""
        for name, value in values.items():
            self.driver.execute_script(
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
                self.one(f"#{name}"),
                value,
            )

    def generate(self, **values: object) -> None:
        """Fills in the form, and waits until its texts are complete."""
        self.wait_until_ready()
        self.fill(**values)
        self.one("#generate").click()
        self.wait_until_complete()

    def wait_until_ready(self) -> None:
        self.wait(self.one("#generate").is_enabled)

    def wait_until_complete(self) -> None:
        self.wait(lambda: self.texts() and not self.one("#stop").is_enabled())

    def texts(self) -> list[str]:
        """The continuations."""
        return [str(element.get_property("textContent")) for element in self.all(".tokens")]

    def press(self, *keys: str) -> None:
        """Types at the element that has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def point_at(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element(element).perform()

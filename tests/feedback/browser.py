"""A headless Chromium that can reach this machine alone, and what it asked for."""

import json
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from megatron_biollm.feedback.web.serve import make_feedback_server
from tests.feedback.project import PASSWORD

_QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--no-first-run", "--window-size=1366,1400",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip


def needs_chromium() -> tuple[str, str]:
    """The browser and its driver; skips the test where one is absent."""
    pytest.importorskip("selenium", reason="the dev extra has selenium")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver)")
    return browser, driver


@contextmanager
def serving(path: Path, port: int = 0, busy_timeout_s: float = 0.2):
    """The server on `path`, in a thread; yields its address."""
    server = make_feedback_server(path, port=port)
    server.app.config["BUSY_TIMEOUT_S"] = busy_timeout_s
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Browser:
    """One annotator before a real browser."""

    def __init__(self, address: str, script: bool = True):
        from selenium import webdriver

        binary, driver = needs_chromium()
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in _QUIET:
            options.add_argument(flag)
        if not script:
            options.add_experimental_option(
                "prefs", {"profile.managed_default_content_settings.javascript": 2}
            )
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.address = address
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def close(self) -> None:
        self.driver.quit()

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def text(self) -> str:
        return self.find("body").text

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector: str, text: str) -> None:
        self.find(selector).send_keys(text)

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def log_in(self, name: str) -> None:
        self.open("/login")
        self.type("[name=name]", name)
        self.type("[name=password]", PASSWORD)
        self.click("button.main")
        self.wait(lambda: name in self.text())

    def wait(self, condition, seconds: float = 30.0):
        """Until `condition` holds; what it gives."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except WebDriverException:  # the page is being replaced
                pass
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)

    def kept(self) -> None:
        """Waits until the server has the draft."""
        self.wait(lambda: self.find("#kept").text.startswith("Draft kept"))

    def asked_for(self) -> set[str]:
        """Every address that a page asked for since the last call."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return {
            m["params"]["request"]["url"]
            for m in messages
            if m["method"] == "Network.requestWillBeSent"
        }

    def complaints(self) -> list[str]:
        """What the console says of errors and of what the security policy forbids."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

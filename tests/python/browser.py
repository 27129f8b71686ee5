"""A browser on the page, and what its tests share. It looks for elements as a person does: by role, name and text."""

import json
import pathlib
import threading
import time
import urllib.error
import urllib.request

import axe_playwright_python
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

KEY = "sk-master"
AXE = (pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
PATIENCE = 30


def until(what, look):
    """Waits until `look` gives something true, and returns it."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = look()
            if found:
                return found
        except (NoSuchElementException, StaleElementReferenceException):
            # Drawn again just now.
            pass
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


def call(url, path, body=None, key=KEY, headers=None, timeout=120):
    """The status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, headers=headers or {})
    request.add_header("authorization", f"Bearer {key}")
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class Waiting:
    """A request of its own thread, and what became of it."""

    def __init__(self, url, call_id, model="model", priority=0, key=KEY):
        self.call_id, self.answer, self.ended = call_id, None, None
        body = {"model": model, "priority": priority, "messages": [{"role": "user", "content": "hi"}]}

        def run():
            self.answer = call(url, "/v1/chat/completions", body, key, {"x-litellm-call-id": call_id})
            self.ended = time.monotonic()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def join(self):
        self.thread.join(PATIENCE)
        assert self.answer is not None, f"{self.call_id} has no answer"
        return self.answer


class Browser:
    def __init__(self, url, key=KEY):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.url, self.key = url, key
        # Before any script of the page: what the policy refuses, and what runs too long.
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source="""
            window.refused = []; window.longest = 0;
            addEventListener("securitypolicyviolation", event => refused.push(`${event.violatedDirective} ${event.blockedURI}`));
            new PerformanceObserver(list => { for (const one of list.getEntries()) longest = Math.max(longest, one.duration); })
                .observe({entryTypes: ["longtask"]});
        """)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def cdp(self, method, **parameters):
        return self.driver.execute_cdp_cmd(method, parameters)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def size(self, width, height=1000):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def go(self, route=""):
        """Shows a view. The page is read anew only if it is not there yet."""
        if not self.driver.current_url.startswith(self.url):
            self.driver.get(f"{self.url}/ui{route}")
        else:
            self.run("location.hash = arguments[0]", route)

    def enter_key(self, key=None):
        self.field("Key").send_keys(key or self.key)
        self.press("Show the queue")

    # --- looking ---

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self):
        return self.driver.find_element(By.TAG_NAME, "body").text

    def sees(self, text):
        until(f"the page shows {text!r}", lambda: text in self.text())

    def said(self, text):
        """In the region that a screen reader reads out."""
        until(f"is said: {text!r}", lambda: text in self.run("return document.getElementById('said').textContent"))

    def button(self, name, within=""):
        # Found in one go: while the driver asks a hundred of them one by one, the page is drawn again.
        script = """
            const named = one => one.innerText.trim() === arguments[0] || one.getAttribute("aria-label") === arguments[0];
            return [...document.querySelectorAll(arguments[1])].find(one => one.checkVisibility() && named(one)) ?? null;
        """
        return until(f"a button {name!r}", lambda: self.run(script, name, f"{within} button, {within} a"))

    def press(self, name, within=""):
        def click():
            button = self.button(name, within)
            # The driver's own scrolling leaves it below the bar at the top.
            self.run("arguments[0].scrollIntoView({block: 'center'})", button)
            button.click()
            return True
        until(f"{name!r} can be pressed", click)

    def field(self, label):
        def find():
            for one in self.all("label"):
                if one.is_displayed() and one.text.strip() == label:
                    named = one.get_attribute("for")
                    return self.driver.find_element(By.ID, named) if named else one.find_element(By.TAG_NAME, "input")
            return None
        return until(f"a field {label!r}", find)

    def fill(self, label, value):
        field = self.field(label)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value))

    def rows(self, caption):
        """The rows of a table, each a dict by column."""
        return self.run("""
            for (const table of document.querySelectorAll("table")) {
                if (!table.caption || table.caption.textContent !== arguments[0]) continue;
                return [...table.tBodies[0].rows].filter(row => !row.classList.contains("empty")).map(row =>
                    Object.fromEntries([...row.cells].map(cell => [cell.dataset.name, cell.textContent])));
            }
            return null;
        """, caption)

    def queue(self, group="model"):
        return self.rows(f"Tickets waiting in {group}, best first") or []

    def active(self):
        return self.driver.switch_to.active_element

    def tab_to(self, name, most=200):
        """By keyboard alone: Tab until the focus is on what has this name."""
        for _ in range(most):
            if name in (self.active().get_attribute("aria-label"), self.active().text):
                return
            self.active().send_keys(Keys.TAB)
        raise AssertionError(f"no Tab comes to {name!r}")

    # --- judging ---

    def no_faults(self):
        """Neither the policy nor the console has anything to say. A refused key is an answer that the console names."""
        refused = self.run("return window.refused")
        assert not refused, refused
        # Answers that are errors are named by the console; they are told from faults of the page by their source.
        log = [one for one in self.driver.get_log("browser") if one["source"] != "network"]
        assert not log, log

    def no_sideways_scroll(self):
        wide = self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} px too wide"

    def accessible(self):
        # In the page's own world a policy would refuse it: run by the driver it is not refused.
        self.run(AXE)
        found = self.driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(done);
        """)
        faults = [f"{one['id']}: {one['help']} {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found["violations"]]
        assert not faults, "\n".join(faults)

    def picture(self, file, height=None):
        """The page as it is seen, as tall as it is or `height`."""
        import base64
        tall = self.run("return document.documentElement.scrollHeight")
        width = self.run("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height or tall, 4000), "scale": 1}
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        pathlib.Path(file).write_bytes(base64.b64decode(shot["data"]))

"""The page, used in a real browser as a person does. Arguments: the URLs of two instances of a fleet, the
process of the first, and a directory for pictures."""

import os
import signal
import sys
import urllib.parse

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from browser import Browser, KEY, Waiting, call, until

FIRST, SECOND, INSTANCE = sys.argv[1], sys.argv[2], int(sys.argv[3])
PICTURES = sys.argv[4] if len(sys.argv) > 4 else None
HOSTILE = "<img src=x onerror=hacked=1>/?#%"
GROUP = "#/group/model"


def waiting(browser, *calls):
    """All of them are in the table of the queue."""
    ids = {one.call_id for one in calls}

    def seen():
        titles = browser.run("return [...document.querySelectorAll('td a.id')].map(one => one.title)")
        return ids <= set(titles)
    until(f"{ids} are shown as waiting", seen)


def order(browser):
    return browser.run("""
        const table = [...document.querySelectorAll("table")].find(one => one.caption.textContent.startsWith("Tickets waiting"));
        return [...table.querySelectorAll("a.id")].map(one => one.title);
    """)


def asks_for_a_key(browser):
    browser.go()
    browser.sees("Which key?")
    browser.enter_key("sk-wrong")
    until("the key is refused in words", lambda: browser.all(".key .error"))
    browser.enter_key()
    browser.sees("Live, by instance")
    browser.sees("Instances")
    # In the tab, and nowhere else.
    kept = browser.run("return [sessionStorage.length, document.cookie, location.href.includes(arguments[0]), JSON.stringify(localStorage)]", KEY)
    assert kept[:3] == [1, "", False] and KEY not in kept[3], kept
    until("both are ready", lambda: [one["State"] for one in browser.rows("Instances of the fleet")] == ["ready", "ready"])


def moved_ticket_goes_first(browser):
    browser.go(GROUP)
    browser.press("Pause model")
    browser.press("Pause", "dialog")
    browser.said("model is paused.")
    browser.sees("The group is paused")
    calls = [Waiting(url, f"move-{n}") for n, url in enumerate([FIRST, SECOND, FIRST, SECOND])]
    waiting(browser, *calls)
    last = order(browser)[-1]
    browser.press(f"Move {last}")
    browser.sees("A lower number goes first.")
    browser.fill("New priority", -10)
    browser.press("Move", "dialog")
    browser.said("Moved to priority −10: it is the first now.")
    until("the moved one is first in the queue", lambda: order(browser)[0] == last)
    row = browser.queue()[0]
    assert (row["Position"], row["Priority"]) == ("head", "−10"), row
    browser.press("Resume model")
    browser.said("model goes on.")
    until("the queue is empty", lambda: not browser.queue())
    ended = sorted(calls, key=lambda one: one.join() and one.ended)
    # Two go at once; the other two, one of which came before it, three seconds later.
    assert last in [one.call_id for one in ended[:2]], [one.call_id for one in ended]
    assert ended[2].ended - ended[1].ended > 1
    assert all(one.answer[0] == 200 for one in calls), [one.answer for one in calls]
    # Its life says the same.
    browser.go(f"#/request/{last}")
    browser.sees("was moved")
    browser.sees("went to the provider")
    browser.sees("Its life")


def pause(browser):
    browser.go(GROUP)
    browser.press("Pause model")
    browser.press("Pause", "dialog")
    browser.sees("The group is paused")


def resume(browser):
    browser.go(GROUP)
    browser.press("Resume model")
    browser.said("model goes on.")


def cancelled_client_gets_409_with_the_reason(browser):
    pause(browser)
    one = Waiting(SECOND, "cancel-1")
    waiting(browser, one)
    # From its own view: why it waits, and what to do.
    browser.go("#/request/cancel-1")
    browser.sees("Why it waits")
    browser.sees("The group is paused")
    browser.press("Cancel…")
    browser.fill("Reason, for its client", "too old <b>now</b>")
    browser.press("Cancel the request", "dialog")
    browser.said("Cancelled: it has left the queue.")
    status, body = one.join()
    assert status == 409 and "too old <b>now</b>" in body["error"]["message"], (status, body)
    resume(browser)


def late_action_is_said_in_words(browser):
    pause(browser)
    one = Waiting(FIRST, "late-1")
    waiting(browser, one)
    browser.press("Move late-1")
    # Somebody else was faster.
    ticket = next(row["ticket"] for row in call(FIRST, "/admin/groups/model/tickets")[1]["tickets"])
    status, body = call(SECOND, f"/admin/groups/model/tickets/{ticket}/cancel", {"reason": "faster"})
    assert status == 200, body
    browser.fill("New priority", 3)
    browser.press("Move", "dialog")
    browser.said("Too late")
    assert one.join()[0] == 409
    resume(browser)


def paused_key_waits_and_others_go(browser):
    browser.go(GROUP)
    browser.press("Pause a key…")
    browser.fill("Name of the key", "batch")
    browser.press("Pause the key", "dialog")
    browser.said("The key batch is paused in model.")
    held = Waiting(FIRST, "key-batch", priority=-5, key="sk-batch")
    browser.go("#/request/key-batch")
    browser.sees("Why it waits")
    other = Waiting(SECOND, "key-web", priority=5, key="sk-web")
    assert other.join()[0] == 200
    assert held.answer is None
    browser.go(GROUP)
    browser.press("Resume key batch")
    browser.said("The key batch goes on in model.")
    assert held.join()[0] == 200


def changed_limit_holds_until_it_is_put_back(browser):
    browser.go(GROUP)
    browser.press("Change rpm of first")
    browser.fill("New limit", 1)
    browser.press("Change", "dialog")
    browser.said("rpm of first is 1 until further notice.")
    browser.sees("until further notice; configured: 2")
    calls = [Waiting(SECOND, f"limit-{n}") for n in range(4)]
    browser.sees("The head of the queue waits for room for requests")
    browser.go("#/")
    browser.sees("1 limit changed")
    browser.go(GROUP)
    browser.press("Put rpm of first back to 2")
    browser.said("as configured")
    assert all(one.join()[0] == 200 for one in calls)


def filters_and_history(browser):
    pause(browser)
    calls = [Waiting(FIRST, f"filter-{n}", priority=n) for n in range(3)] + [Waiting(SECOND, "filter-web", priority=7, key="sk-web")]
    waiting(browser, *calls)
    browser.fill("Key", "web")
    browser.press("Filter")
    until("one is left", lambda: order(browser) == ["filter-web"])
    browser.press("Show all")
    waiting(browser, *calls)
    browser.fill("Priority", 1)
    browser.field("Priority").send_keys(Keys.ENTER)
    until("one is left", lambda: order(browser) == ["filter-1"])
    browser.press("Show all")
    resume(browser)
    for one in calls:
        one.join()
    browser.go("#/requests")
    browser.sees("Latest requests")
    until("the latest are shown", lambda: "filter-web" in browser.run("return [...document.querySelectorAll('a.id')].map(one => one.title).join()"))
    field = browser.driver.find_element(By.CSS_SELECTOR, "input[type=search]")
    field.send_keys("filter-web", Keys.ENTER)
    browser.sees("entered the queue")
    browser.go("#/request/nobody")
    browser.sees("No instance knows this request.")


def everything_by_keyboard(browser):
    pause(browser)
    one, other = Waiting(FIRST, "keys-1"), Waiting(SECOND, "keys-2")
    waiting(browser, one, other)
    browser.go("#/")
    browser.driver.refresh()
    browser.sees("Live, by instance")
    browser.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.active().text == "Skip to the content", browser.active().text
    visible = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert visible != "none", "the focus is visible"
    browser.tab_to("model")
    browser.active().send_keys(Keys.ENTER)
    waiting(browser, one, other)
    assert browser.active().tag_name == "h1", "the new view is read out"
    last = order(browser)[-1]
    browser.tab_to(f"Move {last}")
    browser.active().send_keys(Keys.ENTER)
    assert browser.active().tag_name == "input", "the dialog takes the focus"
    browser.active().send_keys(Keys.ESCAPE)
    until("Escape closes the dialog", lambda: not browser.all("dialog[open]"))
    assert browser.active().get_attribute("aria-label") == f"Move {last}", "the focus is back"
    browser.active().send_keys(Keys.ENTER)
    browser.active().send_keys(Keys.CONTROL, "a")
    browser.active().send_keys("-3", Keys.ENTER)
    browser.said("Moved to priority −3")
    until("it is first", lambda: order(browser)[0] == last)
    browser.tab_to("Hold")
    browser.active().send_keys(Keys.ENTER)
    browser.sees("Held: what is shown stands still")
    browser.active().send_keys(Keys.ENTER)
    resume(browser)
    assert one.join()[0] == other.join()[0] == 200


def hostile_names_are_text(browser):
    one = Waiting(FIRST, "<script>hacked=1</script>", model=HOSTILE)
    one.join()
    browser.go("#/")
    browser.sees(HOSTILE)
    browser.go(f"#/group/{urllib.parse.quote(HOSTILE, safe='')}")
    browser.sees(f"Order: priority")
    assert HOSTILE in browser.driver.find_element(By.TAG_NAME, "h1").text
    browser.press(f"Pause {HOSTILE}")
    browser.press("Pause", "dialog")
    browser.said(f"{HOSTILE} is paused.")
    two = Waiting(SECOND, "'\"><svg onload=hacked=1>", model=HOSTILE)
    until("it is shown", lambda: len(browser.queue(HOSTILE)) == 1)
    browser.press(f"Resume {HOSTILE}")
    two.join()
    browser.go("#/requests")
    browser.sees(HOSTILE)
    assert browser.run("return window.hacked === undefined && !document.querySelector('main img, main script')")


def lost_instance_is_said(browser):
    """What is shown is old, and the page says so; it comes back by itself."""
    browser.go("#/")
    os.kill(INSTANCE, signal.SIGSTOP)
    browser.said("No news from the fleet: what is shown is old.")
    browser.sees("Old: the last news came")
    os.kill(INSTANCE, signal.SIGCONT)
    browser.said("Live again.")


def looks_right_everywhere(browser):
    pause(browser)
    calls = [Waiting(FIRST if n % 2 else SECOND, f"look-{n}", priority=[0, 5, 1000][n % 3]) for n in range(9)]
    waiting(browser, *calls)
    backs = set()
    for width in [1600, 400]:
        for scheme in ["light", "dark"]:
            browser.size(width)
            browser.scheme(scheme)
            backs.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
            for name, route in [("fleet", "#/"), ("group", GROUP), ("requests", "#/requests"), ("life", "#/request/look-1")]:
                browser.go(route)
                until("the view", lambda: browser.all("main h1") and "Being looked up" not in browser.text())
                browser.no_sideways_scroll()
                browser.accessible()
                if PICTURES:
                    browser.picture(f"{PICTURES}/{name}-{width}-{scheme}.png")
            browser.go(GROUP)
            browser.press("Pause a key…")
            browser.no_sideways_scroll()
            browser.accessible()
            browser.active().send_keys(Keys.ESCAPE)
    assert len(backs) == 2, backs
    browser.size(1600)
    # The switch wins over the system.
    browser.scheme("light")
    theme = Select(browser.driver.find_element(By.ID, "theme"))
    theme.select_by_value("dark")
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    theme.select_by_value("light")
    assert dark != browser.run("return getComputedStyle(document.body).backgroundColor")
    resume(browser)
    for one in calls:
        one.join()


def drained_instance_is_not_ready(browser):
    browser.go("#/")
    browser.press(browser.run("return [...document.querySelectorAll('button')].filter(b => (b.ariaLabel ?? '').startsWith('Drain'))[0].ariaLabel"))
    browser.press("Drain", "dialog")
    browser.said("The instance drains.")
    until("one drains", lambda: sorted(one["State"] for one in browser.rows("Instances of the fleet")) == ["drains", "ready"])
    browser.press(browser.run("return [...document.querySelectorAll('button')].filter(b => (b.ariaLabel ?? '').startsWith('Resume instance'))[0].ariaLabel"))
    until("both are ready", lambda: [one["State"] for one in browser.rows("Instances of the fleet")] == ["ready", "ready"])


STEPS = [
    asks_for_a_key, moved_ticket_goes_first, cancelled_client_gets_409_with_the_reason, late_action_is_said_in_words,
    paused_key_waits_and_others_go, changed_limit_holds_until_it_is_put_back, filters_and_history, everything_by_keyboard,
    hostile_names_are_text, looks_right_everywhere, drained_instance_is_not_ready, lost_instance_is_said,
]

with Browser(FIRST) as browser:
    for step in STEPS:
        print(step.__name__, flush=True)
        try:
            step(browser)
            browser.no_faults()
        except BaseException:
            print(browser.text()[:3000], browser.driver.get_log("browser"), flush=True)
            raise
print("the page passes")

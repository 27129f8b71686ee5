"""The page with 10,000 waiting tickets. Argument: the URL of an instance."""

import sys
import time

from browser import Browser, until

with Browser(sys.argv[1]) as browser:
    browser.go()
    browser.enter_key()
    browser.sees("Live, by instance")
    browser.run("longest = 0")
    began = time.monotonic()
    browser.go("#/group/model")
    until("the first page", lambda: len(browser.queue()) == 50)
    shown = time.monotonic() - began
    assert "of 9 998" in browser.text(), browser.text()[:2000]
    began = time.monotonic()
    browser.press("Next")
    until("the second page", lambda: browser.queue()[0]["Position"] == "51")
    turned = time.monotonic() - began
    # Some seconds of live news.
    time.sleep(5)
    nodes = browser.run("return document.querySelectorAll('*').length")
    longest = browser.run("return longest")
    print(f"shown after {shown:.2f} s, turned after {turned:.2f} s, {nodes} elements, longest task {longest:.0f} ms")
    # The times are the machine's, which is busy with other tests. What the page itself does is judged.
    assert nodes < 3000, "it lays out more than a page"
    assert longest < 500, "a task holds the page"
    browser.no_faults()
print("ten thousand pass")

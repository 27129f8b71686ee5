"""What the native part logs."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from conftest import MESSAGES, mock, until

from vorrang import exceptions


def test_warnings_about_settings_are_logged_when_the_router_is_made(router, caplog):
    router(mock(), allowed_fails_policy={"TimeoutErrorAllowedFails": 3})
    records = [record for record in caplog.records if record.name.startswith("vorrang.")]
    assert any("allowed_fails_policy" in record.getMessage() for record in records)
    assert all(record.levelno == logging.WARNING for record in records)


def test_events_of_calls_come_to_the_logger_of_their_module(router, caplog, upstream):
    with caplog.at_level(logging.INFO, "vorrang"):
        one = router(
            upstream.deployment("status-500"), mock("well"), num_retries=0, fallbacks=[{"status-500": ["well"]}]
        )
        assert one.completion("status-500", MESSAGES).choices[0].message.content == "Hello!"
        until(lambda: any(record.name.startswith("vorrang.gateway.") for record in caplog.records))


def test_nothing_is_printed_without_handlers():
    program = f"from vorrang import Router\nRouter(model_list=[{mock()!r}]).completion('gpt', [])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_handler_that_fails_does_not_end_the_forwarding(router, upstream, capsys):
    class Fails(logging.Handler):
        seen = 0

        def emit(self, record):
            Fails.seen += 1
            raise ValueError("mine")

    logger, handler = logging.getLogger("vorrang"), Fails()
    one = router(upstream.deployment("status-500"), num_retries=0, disable_cooldowns=True)
    logger.addHandler(handler)
    try:
        for _ in range(3):
            before = Fails.seen
            with pytest.raises(exceptions.InternalServerError):
                one.completion("status-500", MESSAGES)
            until(lambda: Fails.seen > before)
    finally:
        logger.removeHandler(handler)
    assert "ValueError: mine" in capsys.readouterr().err


def test_forwarding_that_was_ended_starts_again_with_the_next_router():
    program = f"""
import logging, threading, time
from vorrang import Router

class Exits(logging.Handler):
    seen = 0

    def emit(self, record):
        Exits.seen += 1
        if threading.current_thread().name == "vorrang-logging" and Exits.seen == 1:
            raise SystemExit

logging.getLogger("vorrang").addHandler(Exits())
forwards = lambda: any(thread.name == "vorrang-logging" for thread in threading.enumerate())

def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)

model = {mock(mock_response="litellm.InternalServerError")!r}

def fail():
    try:
        Router(model_list=[model], num_retries=0, disable_cooldowns=True).completion("gpt", [])
    except Exception:
        pass

fail()
until(lambda: Exits.seen and not forwards())
fail()
assert forwards()
until(lambda: Exits.seen > 1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

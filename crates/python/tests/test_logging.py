"""What the native part logs."""

from __future__ import annotations

import logging
import subprocess
import sys

from conftest import MESSAGES, mock, until


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

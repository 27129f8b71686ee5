"""What the native part logs goes to the loggers ``vorrang.*``."""

from __future__ import annotations

import logging
import os
import threading

from . import _vorrang

_thread_runs = False
# Held from taking records until they are logged: they come in order. A handler may make a Router.
_lock = threading.RLock()


def start() -> None:
    """Takes the logger's present level, and begins to forward."""
    global _thread_runs
    _vorrang.set_log_level(logging.getLogger("vorrang").getEffectiveLevel())
    if not _thread_runs:
        _thread_runs = True
        threading.Thread(target=_forward, name="vorrang-logging", daemon=True).start()


def flush() -> None:
    """Logs what has come so far."""
    with _lock:
        for level, logger, message in _vorrang.take_records():
            logging.getLogger(logger).log(level, "%s", message)


def _forward() -> None:
    while True:
        _vorrang.wait_for_records()
        flush()


def _after_fork() -> None:
    global _thread_runs, _lock
    _thread_runs = False
    _lock = threading.RLock()
    _vorrang.forget_records()


os.register_at_fork(after_in_child=_after_fork)

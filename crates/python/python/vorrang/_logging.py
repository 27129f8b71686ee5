"""What the native part logs goes to the loggers ``vorrang.*``."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from typing import Optional

from . import _vorrang

_thread: Optional[threading.Thread] = None
# Held from taking records until they are logged: they come in order. A handler may make a Router.
_lock = threading.RLock()


def start() -> None:
    """Takes the logger's present level, and begins to forward."""
    global _thread
    _vorrang.set_log_level(logging.getLogger("vorrang").getEffectiveLevel())
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_forward, name="vorrang-logging", daemon=True)
            _thread.start()


def flush() -> None:
    """Logs what has come so far."""
    with _lock:
        for level, logger, message in _vorrang.take_records():
            log(logging.getLogger(logger), level, message)


def log(logger: logging.Logger, level: int, message: str, failure: Optional[BaseException] = None) -> None:
    """Logs, and survives an exception of a handler or filter: it is printed, as `logging` does it."""
    try:
        logger.log(level, "%s", message, exc_info=failure)
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc()


def _forward() -> None:
    while True:
        _vorrang.wait_for_records()
        flush()


def _after_fork() -> None:
    global _thread, _lock
    _thread = None
    _lock = threading.RLock()
    _vorrang.forget_records()


os.register_at_fork(after_in_child=_after_fork)

"""What goes to the native part: JSON."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Mapping


def given(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """``None`` means "not given"."""
    return {name: value for name, value in settings.items() if value is not None}


def to_json(value: Any) -> bytes:
    """Raises ``TypeError`` or ``ValueError`` for what is no JSON."""
    text = json.dumps(value, default=_serializable, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _serializable(value: Any) -> Any:
    """What `json` does not know: pydantic's objects, such as those of OpenAI's SDK, and iterables."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON: {value!r}")

"""What the tests of clients share: keys, models, and what their upstreams answer (../upstreams.py, tests/src/upstream)."""

KEY = "sk-client-of-the-gateway"
# May call only `gpt`.
NARROW = "sk-narrow"
MESSAGES = [{"role": "user", "content": "hi"}]
SYSTEM = [{"role": "system", "content": "there"}, *MESSAGES]
PRIORITY = {"priority": 7}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": SCHEMA}}
VECTOR = [1.0, -2.0]


def said(text):
    return [{"role": "user", "content": text}]


def wrong(kind, error):
    return AssertionError(f"not {kind.__name__} but {type(error).__name__}: {error}")


def right(kind, error, status):
    """The class itself: its parent, which a client may not look for, does not count."""
    if type(error) is not kind:
        raise wrong(kind, error) from error
    found = getattr(error, "status_code", None)
    assert status is None or found == status, f"{kind.__name__} with status {found}, not {status}: {error}"
    return error


def raises(kind, call, status=None):
    try:
        answer = call()
    except Exception as error:
        return right(kind, error, status)
    raise AssertionError(f"{kind.__name__} was not raised, but there was an answer: {answer}")


async def raises_async(kind, call, status=None):
    try:
        answer = await call()
    except Exception as error:
        return right(kind, error, status)
    raise AssertionError(f"{kind.__name__} was not raised, but there was an answer: {answer}")


def text_of(chunks):
    """Of a streamed chat. More than one piece: it was a stream."""
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1, pieces
    return "".join(pieces)

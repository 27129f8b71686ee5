"""Streamed answers."""

from __future__ import annotations

import asyncio

import pytest
from conftest import MESSAGES, until

from vorrang import AsyncStream, Stream, exceptions


def text(events):
    return "".join(event.choices[0].delta.content or "" for event in events)


def test_stream_of_a_thread_gives_all_events(router):
    stream = router().completion("gpt", MESSAGES, stream=True)
    assert isinstance(stream, Stream)
    events = list(stream)
    assert text(events) == "Hello!"
    assert events[0].object == "chat.completion.chunk" and events[0]._hidden_params["attempts"] == 1
    assert list(stream) == []


def test_stream_of_a_loop_gives_all_events(router):
    async def read():
        stream = await router().acompletion(model="gpt", messages=MESSAGES, stream=True)
        assert isinstance(stream, AsyncStream)
        return [event async for event in stream]

    assert text(asyncio.run(read())) == "Hello!"


def test_text_completion_streams_texts(router):
    stream = router().text_completion("gpt", "Hey!", stream=True)
    assert "".join(event.choices[0].text for event in stream) == "Hello!"


def test_error_before_the_first_event_is_raised_by_the_call(router):
    with pytest.raises(exceptions.BadRequestError):
        router().completion("nope", MESSAGES, stream=True)


def test_error_after_the_first_event_comes_after_it(router, upstream):
    stream = router(upstream.deployment("events-fail")).completion("events-fail", MESSAGES, stream=True)
    assert next(stream).choices[0].delta.content == "a"
    with pytest.raises(exceptions.APIError, match="broken"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_event_that_is_no_json_object_ends_the_call(router, upstream):
    one = router(upstream.deployment("events-text"))
    stream = one.completion("events-text", MESSAGES, stream=True)
    assert next(stream).choices[0].delta.content == "a"
    with pytest.raises(exceptions.APIError, match="no JSON object") as error:
        next(stream)
    assert error.value.llm_provider == "openai" and error.value.response.content == b"no JSON"
    assert list(stream) == []
    until(lambda: upstream.open == 0 and one.status()["events-text"]["in_flight_here"] == 0)


@pytest.mark.parametrize("leave", ["close", "drop", "with"])
def test_closed_stream_of_a_thread_ends_the_call(router, upstream, leave):
    one = router(upstream.deployment("events-hang", max_parallel_requests=1))
    stream = one.completion("events-hang", MESSAGES, stream=True)
    next(stream)
    assert upstream.open == 1
    if leave == "close":
        stream.close()
    elif leave == "drop":
        del stream
    else:
        with stream:
            pass
    until(lambda: upstream.open == 0 and one.status()["events-hang"]["in_flight_here"] == 0)


@pytest.mark.parametrize("leave", ["aclose", "cancel", "with"])
def test_left_stream_of_a_loop_ends_the_call(router, upstream, leave):
    one = router(upstream.deployment("events-hang", max_parallel_requests=1))

    async def read():
        stream = await one.acompletion("events-hang", MESSAGES, stream=True)
        if leave == "with":
            async with stream:
                await stream.__anext__()
            return
        await stream.__anext__()
        if leave == "aclose":
            await stream.aclose()
            return
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)

    asyncio.run(read())
    until(lambda: upstream.open == 0 and one.status()["events-hang"]["in_flight_here"] == 0)

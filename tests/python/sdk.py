"""Calls two gateways as programs written against LiteLLM's documentation do: sdk.py DOCUMENTED_URL FORWARDING_URL.

Ends with "all calls answered", or with the first assertion that does not hold.
"""

import asyncio
import sys

import openai

MESSAGES = [{"role": "user", "content": "hi"}]
PRIORITY = {"priority": 0}


def check(raw, expected):
    """A prioritised answer: its text and its headers. Returns the SDK's parsed object."""
    assert raw.headers["x-litellm-request-prioritization-used"] == "True", raw.headers
    assert raw.headers["x-vorrang-priority"] == "0", raw.headers
    assert raw.headers["x-vorrang-ticket"].startswith("arrival="), raw.headers
    answer = raw.parse()
    assert answer.choices[0].message.content == expected, answer
    assert answer.usage.total_tokens > 0, answer
    return answer


def sync(url, model, expected):
    client = openai.OpenAI(api_key="anything", base_url=url, max_retries=0)
    create = client.chat.completions.with_raw_response.create
    check(create(model=model, messages=MESSAGES, extra_body=PRIORITY), expected)

    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True, extra_body=PRIORITY)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces) == expected, pieces

    text = client.completions.create(model=model, prompt="hi", extra_body=PRIORITY)
    assert text.choices[0].text == expected, text

    stream = client.completions.create(model=model, prompt="hi", stream=True, extra_body=PRIORITY)
    pieces = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert len(pieces) > 1 and "".join(pieces) == expected, pieces

    names = [listed.id for listed in client.models.list()]
    assert model in names, names

    try:
        client.chat.completions.create(model="nope", messages=MESSAGES, extra_body=PRIORITY)
        raise AssertionError("an unknown model was answered")
    except openai.BadRequestError as error:
        assert "Invalid model name passed in model=nope" in error.message, error
    try:
        client.chat.completions.create(model=model, messages=MESSAGES, extra_body={"priority": "1"})
        raise AssertionError("a priority that is no number was taken")
    except openai.BadRequestError as error:
        assert "priority" in error.message, error


async def asynchronous(url, model, expected):
    client = openai.AsyncOpenAI(api_key="anything", base_url=url, max_retries=0)
    create = client.chat.completions.with_raw_response.create
    raw = await create(model=model, messages=MESSAGES, extra_body=PRIORITY)
    check(raw, expected)
    stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True, extra_body=PRIORITY)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(pieces) == expected, pieces

    text = await client.completions.create(model=model, prompt="hi", extra_body=PRIORITY)
    assert text.choices[0].text == expected, text
    stream = await client.completions.create(model=model, prompt="hi", stream=True, extra_body=PRIORITY)
    pieces = [chunk.choices[0].text async for chunk in stream if chunk.choices]
    assert len(pieces) > 1 and "".join(pieces) == expected, pieces


def main():
    documented, forwarding = sys.argv[1:]
    for url, model, expected in [
        (documented, "gpt-3.5-turbo-fake-model", "hello world!"),
        (forwarding, "model", "right of way"),
    ]:
        for base in [url, f"{url}/v1"]:
            sync(base, model, expected)
            asyncio.run(asynchronous(base, model, expected))
    print("all calls answered")


main()

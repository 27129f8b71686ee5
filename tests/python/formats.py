"""Both SDKs on upstreams of all formats: formats.py GATEWAY_URL. The models are `claude`, `gpt`, and `codex`, which has only
the Responses API.

Ends with "all formats answered", or with the first assertion that does not hold.
"""

import asyncio
import json
import sys

import anthropic
import openai

KEY = "sk-client-of-the-gateway"
PRIORITY = {"priority": 0}
MESSAGES = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "The weather of a city", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "...", "parameters": SCHEMA}}
WEATHER = {"Rome": "20", "Oslo": "5"}


def raises(kind, call, status=None):
    try:
        call()
    except kind as error:
        assert status is None or error.status_code == status, error
        return error
    raise AssertionError(f"no {kind.__name__}")


def with_anthropic(url, model):
    client = anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0)
    create = client.messages.create
    raw = client.messages.with_raw_response.create(
        model=model, max_tokens=50, messages=MESSAGES, system="there", extra_body=PRIORITY
    )
    assert raw.headers["x-vorrang-priority"] == "0", raw.headers
    message = raw.parse()
    assert message.content[0].text == "hello there", message
    assert message.stop_reason == "end_turn", message
    assert (message.usage.input_tokens, message.usage.output_tokens) == (9, 5), message

    with client.messages.stream(model=model, max_tokens=50, messages=MESSAGES, system="there") as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 1 and "".join(pieces) == "hello there", pieces
    assert (final.usage.input_tokens, final.usage.output_tokens) == (9, 5), final

    for streamed in (False, True):
        agent(client, model, streamed)

    counted = client.messages.count_tokens(model=model, messages=MESSAGES)
    assert counted.input_tokens == (42 if model == "claude" else 1), counted

    def text(content, **more):
        return lambda: create(model=model, max_tokens=50, messages=[{"role": "user", "content": content}], **more)

    error = raises(anthropic.RateLimitError, text("fail 429"), 429)
    assert error.body["error"]["type"] == "rate_limit_error", error.body
    raises(anthropic.PermissionDeniedError, text("fail 403"), 403)
    raises(anthropic.BadRequestError, text("fail 400"), 400)
    raises(anthropic.InternalServerError, text("fail 500"), 500)
    error = raises(anthropic.InternalServerError, text("fail 529"), 529)
    assert error.body["error"]["type"] == "overloaded_error", error.body
    raises(anthropic.RateLimitError, lambda: list(text("fail 429", stream=True)()), 429)
    error = raises(anthropic.BadRequestError, lambda: create(model="nope", max_tokens=5, messages=MESSAGES))
    assert error.body["error"]["type"] == "invalid_request_error" and "nope" in error.message, error
    raises(anthropic.BadRequestError, text("hi", extra_body={"priority": "1"}))
    stranger = anthropic.Anthropic(api_key="sk-stranger", base_url=url, max_retries=0)
    error = raises(
        anthropic.AuthenticationError,
        lambda: stranger.messages.create(model=model, max_tokens=5, messages=MESSAGES),
    )
    assert error.body["error"]["type"] == "authentication_error" and error.body["request_id"], error.body


def agent(client, model, streamed):
    """Runs the tools that the model calls, until it has its answer."""
    messages = [{"role": "user", "content": "How is the weather?"}]
    for _ in range(2):
        asked = {"model": model, "max_tokens": 50, "messages": messages, "tools": [TOOL]}
        if streamed:
            with client.messages.stream(**asked) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(**asked)
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            break
        assert message.stop_reason == "tool_use", message
        assert message.content[0].text == "I look.", message
        assert [call.input["city"] for call in calls] == ["Rome", "Oslo"], message
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": WEATHER[call.input["city"]]} for call in calls
        ]
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    assert message.content[0].text == "It is 20 and 5", message


async def with_async_anthropic(url, model):
    client = anthropic.AsyncAnthropic(auth_token=KEY, base_url=url, max_retries=0)
    message = await client.messages.create(model=model, max_tokens=50, messages=MESSAGES)
    assert message.content[0].text == "hello", message
    async with client.messages.stream(model=model, max_tokens=50, messages=MESSAGES) as stream:
        text = await stream.get_final_text()
    assert text == "hello", text


def with_openai(url, model):
    client = openai.OpenAI(api_key=KEY, base_url=url, max_retries=0)
    create = client.chat.completions.create
    system = [{"role": "system", "content": "there"}, *MESSAGES]
    answer = create(model=model, messages=system, extra_body=PRIORITY)
    assert answer.choices[0].message.content == "hello there", answer
    assert answer.choices[0].finish_reason == "stop" and answer.usage.total_tokens == 14, answer

    for streamed in (False, True):
        messages = [{"role": "user", "content": "How is the weather?"}]
        for _ in range(2):
            message, reason = chat(create, streamed, model=model, messages=messages, tools=[FUNCTION])
            if reason != "tool_calls":
                break
            assert message["content"] == "I look.", message
            messages.append(message)
            for call in message["tool_calls"]:
                city = json.loads(call["function"]["arguments"])["city"]
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": WEATHER[city]})
        assert message["content"] == "It is 20 and 5", message

    def text(content, **more):
        return lambda: create(model=model, messages=[{"role": "user", "content": content}], **more)

    raises(openai.RateLimitError, text("fail 429"), 429)
    raises(openai.BadRequestError, text("fail 400"), 400)
    raises(openai.InternalServerError, text("fail 529"), 529)
    raises(openai.RateLimitError, lambda: list(text("fail 429", stream=True)()), 429)
    error = raises(openai.BadRequestError, text("hi", n=2))
    assert error.param == "n", error


def chat(create, streamed, **asked):
    """The message as a client sends it back, and why it ended."""
    if not streamed:
        choice = create(**asked).choices[0]
        return choice.message.model_dump(exclude_none=True), choice.finish_reason
    message, reason, calls = {"role": "assistant", "content": ""}, None, {}
    usage = None
    for chunk in create(stream=True, stream_options={"include_usage": True}, **asked):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            message["content"] += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for piece in choice.delta.tool_calls or []:
                call = calls.setdefault(piece.index, {"type": "function", "function": {"name": "", "arguments": ""}})
                if piece.id:
                    call["id"] = piece.id
                call["function"]["name"] += piece.function.name or ""
                call["function"]["arguments"] += piece.function.arguments or ""
    assert usage.total_tokens == 14, usage
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message, reason


def with_responses_only(url, model):
    """What only chats of such a model have, and an answer that fails after it has begun."""
    client = openai.OpenAI(api_key=KEY, base_url=url, max_retries=0)
    create = client.chat.completions.create
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    answer = create(model=model, messages=MESSAGES, response_format=form, reasoning_effort="low", max_tokens=50)
    assert json.loads(answer.choices[0].message.content) == {"city": "Rome"}, answer
    assert answer.choices[0].message.reasoning_content == "Hm.", answer
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2, answer
    late = {"model": model, "messages": [{"role": "user", "content": "fail late"}]}
    raises(openai.InternalServerError, lambda: create(**late), 500)
    error = raises(openai.APIError, lambda: list(create(stream=True, **late)))
    assert "as asked for" in error.message, error


def main():
    url = sys.argv[1]
    for model in ("claude", "gpt", "codex"):
        with_anthropic(url, model)
        asyncio.run(with_async_anthropic(url, model))
    for model in ("claude", "codex"):
        with_openai(url, model)
    with_responses_only(url, "codex")
    print("all formats answered")


main()

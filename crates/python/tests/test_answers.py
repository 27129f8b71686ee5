"""Answers as OpenAI's objects."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle

import openai.types.chat
import pytest
from conftest import MESSAGES, mock

from vorrang import ModelResponse, Object


def test_answer_has_attributes_and_items(router):
    answer = router().completion(model="gpt", messages=MESSAGES, priority=3)
    assert answer.choices[0].message.content == "Hello!"
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert "choices" in answer and "nothing" not in answer
    assert answer.get("nothing", 1) == 1
    assert answer.object == "chat.completion" and answer.model == "gpt-4o"


def test_absent_field_of_the_class_is_none_and_another_an_error(router):
    message = router().completion(model="gpt", messages=MESSAGES).choices[0].message
    assert message.tool_calls is None and message.function_call is None
    with pytest.raises(AttributeError, match="Message has no 'contents'"):
        message.contents


def test_answer_dumps_as_it_was_sent(router):
    answer = router().completion(model="gpt", messages=MESSAGES)
    dumped = answer.model_dump()
    assert type(dumped["choices"][0]["message"]) is dict
    assert json.loads(answer.model_dump_json()) == dumped == json.loads(json.dumps(answer)) == answer.to_dict()
    assert "refusal" not in answer.model_dump(exclude_none=True)["choices"][0]["message"]
    assert openai.types.chat.ChatCompletion.model_validate(dumped).choices[0].message.content == "Hello!"


def test_answers_compare_copy_pickle_and_change():
    answer = ModelResponse({"id": "a", "choices": [{"index": 0, "message": {"content": "x", "tool_calls": []}}]})
    assert answer == ModelResponse(answer.model_dump()) != ModelResponse(id="b")
    for other in [copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))]:
        assert other == answer and type(other.choices[0]) is type(answer.choices[0])
    answer.choices[0].message.content = "y"
    assert answer["choices"][0]["message"]["content"] == "y"
    del answer.id
    assert answer.id is None
    assert repr(answer) == "ModelResponse(choices=[Choices(index=0, message=Message(content='y', tool_calls=[]))])"
    assert Object({"a": [[{"b": 1}]]}).a[0][0].b == 1


def test_hidden_params_say_how_it_was_made(router):
    params = router(mock(rpm=9)).completion(model="gpt", messages=MESSAGES, priority=3)._hidden_params
    assert params["attempts"] == 1 and params["retries"] == 0 and params["priority"] == 3
    assert params["model_group"] == "gpt" and params["model_id"]
    assert 0 <= params["wait_seconds"] < 30
    assert params["ticket"]["granted"] > params["ticket"]["arrival"] > 0
    assert params["additional_headers"]["x-litellm-call-id"] == params["litellm_call_id"]


def test_message_of_an_answer_can_be_part_of_the_next_request(router, upstream):
    one = router(upstream.deployment("echo"))
    message = one.completion("echo", MESSAGES).choices[0].message
    of_openai = openai.types.chat.ChatCompletionMessage(role="assistant", content="o")
    one.completion("echo", [*MESSAGES, message, of_openai])
    sent = upstream.requests[1][1]["messages"]
    assert sent[1] == message and sent[2] == {"role": "assistant", "content": "o"}


def test_request_has_the_given_fields_only(router, upstream):
    one = router(upstream.deployment("echo"))
    one.completion("echo", iter(MESSAGES), priority=1, timeout=9, temperature=0.5, top_p=None, extra_body={"x": 1})
    path, body = upstream.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {"model": "echo", "messages": MESSAGES, "temperature": 0.5, "x": 1}


def test_text_completions_and_embeddings_reach_their_endpoints(router, upstream):
    one = router(upstream.deployment("echo"))
    assert json.loads(one.text_completion("echo", "Hey!").choices[0].text)["prompt"] == "Hey!"
    answer = one.embedding(model="echo", input=["a"], priority=2)
    assert answer.data[0].embedding == [0.5, 1] and answer.usage is None

    async def both():
        text = await one.atext_completion("echo", prompt=["a", "b"])
        return text, await one.aembedding("echo", "b")

    text, embedding = asyncio.run(both())
    assert json.loads(text.choices[0].text)["prompt"] == ["a", "b"]
    assert embedding["data"][0]["index"] == 0
    paths = [path for path, _ in upstream.requests]
    assert paths == ["/v1/completions", "/v1/embeddings", "/v1/completions", "/v1/embeddings"]


@pytest.mark.parametrize("value", [object(), b"x", ModelResponse])
def test_value_of_a_request_that_json_does_not_know_is_a_type_error(router, value):
    with pytest.raises(TypeError, match="no value of JSON"):
        router().completion("gpt", MESSAGES, field=value)

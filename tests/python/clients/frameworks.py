"""LangChain and LlamaIndex: frameworks.py GATEWAY_URL."""

import asyncio
import sys

import anthropic
import openai
from common import KEY, PRIORITY, TOOL, VECTOR, raises
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAIEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

# The frameworks keep connections for later clients: all of them in one loop.
LOOP = asyncio.new_event_loop()
WEATHER = {"Rome": "20", "Oslo": "5"}


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return WEATHER[city]


def langchain(chat, headers=None):
    """`headers`: the answer's, where the class shows them."""
    messages = [SystemMessage("there"), HumanMessage("hi")]
    answer = chat.invoke(messages)
    assert answer.text == "hello there", answer
    assert answer.usage_metadata["total_tokens"] == 14, answer
    if headers:
        found = answer.response_metadata["headers"]
        assert found["x-vorrang-priority"] == "7", found

    pieces = list(chat.stream(messages))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert len(pieces) > 2 and whole.text == "hello there", pieces

    async def asynchronous():
        answer = await chat.ainvoke(messages)
        return answer.text, "".join([piece.text async for piece in chat.astream(messages)])

    assert LOOP.run_until_complete(asynchronous()) == ("hello there", "hello there")
    agent(chat.bind_tools([weather]))


def agent(chat):
    """Runs the tools that the model calls, until it has its answer; whole answers, then streamed ones."""

    def streamed(messages):
        pieces = list(chat.stream(messages))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        return whole

    for ask in (chat.invoke, streamed):
        messages = [HumanMessage("How is the weather?")]
        answer = ask(messages)
        assert [call["args"]["city"] for call in answer.tool_calls] == ["Rome", "Oslo"], answer
        messages.append(answer)
        for call in answer.tool_calls:
            messages.append(ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]))
        answer = ask(messages)
        assert answer.text == "It is 20 and 5", answer


def with_langchain(url):
    common = {"max_retries": 0, "api_key": KEY}
    for model in ("gpt", "claude"):
        openai_like = {**common, "model": model, "base_url": f"{url}/v1", "extra_body": PRIORITY, "stream_usage": True}
        langchain(ChatOpenAI(**openai_like, include_response_headers=True), headers=True)
        langchain(ChatAnthropic(**common, model=model, base_url=url, max_tokens=50))
    azure = {**common, "azure_endpoint": url, "azure_deployment": "gpt", "api_version": "2024-10-21"}
    langchain(AzureChatOpenAI(**azure))

    # Its own tokenizer would be downloaded: the text goes as it is.
    embeddings = OpenAIEmbeddings(
        model="model", base_url=f"{url}/v1", api_key=KEY, max_retries=0, check_embedding_ctx_length=False
    )
    assert embeddings.embed_documents(["a", "b"]) == [VECTOR] * 2

    limited = ChatOpenAI(**common, model="gpt", base_url=f"{url}/v1")
    error = raises_any(openai.RateLimitError, lambda: limited.invoke("fail 429"))
    assert error.status_code == 429, error
    limited = ChatAnthropic(**common, model="claude", base_url=url, max_tokens=50)
    error = raises_any(anthropic.RateLimitError, lambda: limited.invoke("fail 429"))
    assert error.status_code == 429, error


def raises_any(kind, call):
    """The class, or one below it: LangChain makes some of its own."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised, but there was an answer: {answer}")


def with_llama_index(url, model):
    llm = OpenAILike(
        model=model,
        api_base=f"{url}/v1",
        api_key=KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        additional_kwargs={"extra_body": PRIORITY},
    )
    messages = [ChatMessage(role="system", content="there"), ChatMessage(role="user", content="hi")]
    assert llm.chat(messages).message.content == "hello there"
    pieces = list(llm.stream_chat(messages))
    assert len(pieces) > 1 and pieces[-1].message.content == "hello there", pieces
    assert llm.complete("hi").text == "hello"

    async def asynchronous():
        answer = await llm.achat(messages)
        pieces = [piece async for piece in await llm.astream_chat(messages)]
        return answer.message.content, pieces[-1].message.content

    assert LOOP.run_until_complete(asynchronous()) == ("hello there", "hello there")
    called = llm.chat([ChatMessage(role="user", content="How is the weather?")], tools=[TOOL])
    calls = llm.get_tool_calls_from_response(called)
    assert [call.tool_kwargs["city"] for call in calls] == ["Rome", "Oslo"], called
    raises(openai.RateLimitError, lambda: llm.chat([ChatMessage(role="user", content="fail 429")]), 429)


def main():
    (url,) = sys.argv[1:]
    with_langchain(url)
    for model in ("gpt", "claude"):
        with_llama_index(url, model)
    print("the frameworks are served")


main()

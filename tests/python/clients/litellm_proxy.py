"""OpenAI's SDK at a LiteLLM proxy whose upstream is the gateway: litellm_proxy.py PROXY_URL."""

import sys

import openai
from common import MESSAGES, PRIORITY, SYSTEM, VECTOR, raises, said, text_of


def main():
    (url,) = sys.argv[1:]
    client = openai.OpenAI(api_key="sk-of-the-proxy-0123456789abcdef", base_url=f"{url}/v1", max_retries=0)
    create = client.chat.completions.create
    for prefix in ("openai", "litellm_proxy"):
        answer = create(model=f"{prefix}-gpt", messages=SYSTEM, extra_body={"extra_body": PRIORITY})
        assert answer.choices[0].message.content == "hello there", answer
        stream = create(model=f"{prefix}-model", messages=MESSAGES, stream=True, extra_body={"extra_body": PRIORITY})
        assert text_of(stream) == "right of way"
        vectors = client.embeddings.create(model=f"{prefix}-model", input="a", encoding_format="float")
        assert vectors.data[0].embedding == VECTOR, vectors
        raises(openai.RateLimitError, lambda: create(model=f"{prefix}-gpt", messages=said("fail 429")), 429)
        raises(openai.BadRequestError, lambda: create(model=f"{prefix}-gpt", messages=said("fail 400")), 400)
    print("the proxy is served")


main()

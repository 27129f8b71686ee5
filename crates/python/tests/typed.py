"""What type checkers see of the package: checked by mypy and pyright, both strict, and run by the tests."""

from __future__ import annotations

import asyncio
from typing import List, Optional

from vorrang import AsyncStream, GroupStatus, ModelResponse, ModelResponseStream, Router, Stream, Wait, exceptions


def on_wait(wait: Wait) -> None:
    print(f"{wait.ahead} before it, at least {wait.least_wait} s")


async def calls(router: Router) -> List[str]:
    messages = [{"role": "user", "content": "Hey!"}]
    response: ModelResponse = await router.acompletion(model="gpt", messages=messages, priority=0, temperature=0.2)
    content: Optional[str] = response.choices[0].message.content
    total: int = response.usage.total_tokens if response.usage else 0
    stream: AsyncStream[ModelResponseStream] = await router.acompletion("gpt", messages, stream=True)
    async with stream:
        parts = [event.choices[0].delta.content or "" async for event in stream]
    text = await router.atext_completion("gpt", prompt="Hey!")
    async with router.permit("gpt", priority=1, tokens=(10, 20)) as permit:
        deployment: str = permit.deployment
        permit.used(len(deployment))
    return [content or "", "".join(parts), text.choices[0].text, str(total > 0)]


def main() -> None:
    model = {"model": "gpt-4o", "mock_response": "Hello!", "rpm": 60}
    model_list = [{"model_name": "gpt", "litellm_params": model}]
    with Router(model_list=model_list, timeout=2, routing_strategy="least-busy", on_wait=on_wait) as router:
        assert asyncio.run(calls(router)) == ["Hello!", "Hello!", "Hello!", "True"]
        stream: Stream[ModelResponseStream] = router.completion("gpt", [], stream=True)
        for event in stream:
            kind: str = event.object
            assert kind == "chat.completion.chunk"

        @router.permit("gpt")
        def double(number: int) -> int:
            return 2 * number

        doubled: int = double(2)
        assert doubled == 4
        try:
            router.completion("nope", [])
        except exceptions.BadRequestError as error:
            code: int = error.status_code
            assert code == 400
        status: GroupStatus = router.status()["gpt"]
        free: Optional[float] = status["next_free"]
        assert free is None and status["deployments"][0]["used"]["requests"] == 6


if __name__ == "__main__":
    main()

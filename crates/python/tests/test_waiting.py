"""The queue as Python sees it: order, cancelled calls, status, on_wait."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import random
import threading
from collections import Counter

import pytest
from conftest import MESSAGES, mock, until

from vorrang import Wait, _waits

SECOND = {"window_seconds": 1}


def waiting(router, name="gpt"):
    return router.status()[name]["waiting_here"]


async def comes_about(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def with_window(shared):
    return {**shared, "vorrang_settings": {**shared.get("vorrang_settings", {}), **SECOND}}


def test_calls_go_by_priority_then_arrival(router, shared):
    one = router(mock(rpm=1), **with_window(shared))
    done = []

    async def call(name, priority):
        await one.acompletion("gpt", MESSAGES, priority=priority)
        done.append(name)

    async def all_of_them():
        await call("first", 0)
        tasks = []
        for index, (name, priority) in enumerate([("batch", 9), ("later", 5), ("user", -1), ("last", 9)]):
            tasks.append(asyncio.ensure_future(call(name, priority)))
            await comes_about(lambda: waiting(one) == index + 1)
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert done == ["first", "user", "later", "batch", "last"]


def test_cancelled_task_leaves_the_queue(router, shared):
    one = router(mock(rpm=1), **shared)

    async def cancel():
        await one.acompletion("gpt", MESSAGES)
        task = asyncio.ensure_future(one.acompletion("gpt", MESSAGES))
        await comes_about(lambda: one.status()["gpt"]["waiting"] == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await comes_about(lambda: one.status()["gpt"]["waiting"] == 0)

    asyncio.run(cancel())


def test_cancelled_task_cuts_the_upstream_call_off(router, upstream):
    one = router(upstream.deployment("hang", max_parallel_requests=1))

    async def cancel():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(one.acompletion("hang", MESSAGES), 0.2)

    asyncio.run(cancel())
    assert len(upstream.requests) == 1
    until(lambda: upstream.open == 0 and one.status()["hang"]["in_flight_here"] == 0)


def test_ten_thousand_waiting_calls_have_no_threads(router):
    one = router(mock(rpm=1), timeout=600)

    async def wait():
        await one.acompletion("gpt", MESSAGES)
        before = threads()
        tasks = [asyncio.ensure_future(one.acompletion("gpt", MESSAGES)) for _ in range(10_000)]
        await comes_about(lambda: waiting(one) == 10_000)
        assert threads() <= before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await comes_about(lambda: waiting(one) == 0)

    asyncio.run(wait())


def threads():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


def memory():
    """KiB of this process."""
    gc.collect()
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def test_calls_cancelled_at_random_leave_nothing(router, upstream):
    one = router(
        mock(max_parallel_requests=8), upstream.deployment("events-hang", max_parallel_requests=4), mock("full", rpm=1)
    )
    chance = random.Random(7)

    async def call(kind):
        if kind == 0:
            await one.acompletion("events-hang", MESSAGES, stream=True)
        else:
            await one.acompletion("full" if kind == 1 else "gpt", MESSAGES)

    kinds = Counter()

    async def some(count):
        tasks = [asyncio.ensure_future(call(chance.choices([0, 1, 2], [1, 20, 100])[0])) for _ in range(count)]
        chance.shuffle(tasks)
        for index, task in enumerate(tasks):
            task.cancel() if chance.random() < 0.8 else None
            if index % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        kinds.update(type(end) for end in ended)

    async def rounds(count):
        for _ in range(count):
            await some(500)
        gc.collect()
        await comes_about(lambda: all(x["waiting_here"] == x["in_flight_here"] == 0 for x in one.status().values()))

    asyncio.run(rounds(6))
    before = memory()
    kinds.clear()
    asyncio.run(rounds(20))
    until(lambda: upstream.open == 0)
    # Answered, and cancelled.
    assert kinds.keys() == {type(None), asyncio.CancelledError} and sum(kinds.values()) == 10_000, kinds
    assert memory() - before < 10 * 1024, "KiB"


def test_on_wait_says_position_and_least_wait(router):
    one = router(mock(rpm=1), timeout=0.3)
    waits, others = [], []

    async def calls():
        await one.acompletion("gpt", MESSAGES, on_wait=waits.append)
        assert waits == []
        first = asyncio.ensure_future(one.acompletion("gpt", MESSAGES, priority=4, on_wait=waits.append))
        await comes_about(lambda: len(waits) == 1)
        second = asyncio.ensure_future(one.acompletion("gpt", MESSAGES, priority=5, on_wait=others.append))
        await asyncio.gather(first, second, return_exceptions=True)

    asyncio.run(calls())
    assert [(wait.model, wait.priority, wait.ahead) for wait in waits + others] == [("gpt", 4, 0), ("gpt", 5, 1)]
    assert all(50 < wait.least_wait <= 121 for wait in waits + others)


def test_on_wait_of_the_router_is_for_all_calls_and_its_error_is_logged(router, caplog):
    seen = []

    def on_wait(wait: Wait):
        seen.append(threading.current_thread())
        raise RuntimeError("mine")

    one = router(mock(rpm=1), timeout=0.1, on_wait=on_wait)
    one.completion("gpt", MESSAGES)
    with caplog.at_level(logging.ERROR, "vorrang"), pytest.raises(Exception, match="timed out"):
        one.completion("gpt", MESSAGES)
    assert seen == [threading.current_thread()]
    assert "on_wait failed" in caplog.text and "mine" in caplog.text


def test_status_shows_queue_use_and_next_free(router, shared):
    one = router(mock(rpm=2, tpm=100_000, max_parallel_requests=3), **shared)

    async def look():
        await one.acompletion("gpt", MESSAGES)
        await one.acompletion("gpt", MESSAGES)
        task = asyncio.ensure_future(one.acompletion("gpt", MESSAGES))
        await comes_about(lambda: one.status()["gpt"]["next_free"] is not None)
        status = one.status()["gpt"]
        task.cancel()
        return status

    status = asyncio.run(look())
    assert status["ready"] and status["waiting"] == status["waiting_here"] == 1
    assert 0 < status["next_free"] <= 61 and status["reasons"] == ["requests"]
    deployment = status["deployments"][0]
    assert deployment["used"]["requests"] == 2 and deployment["used"]["tokens"] > 0
    assert deployment["cooling"] is None
    kinds = {limit["kind"]: (limit["name"], limit["limit"], limit["window_seconds"]) for limit in deployment["limits"]}
    assert kinds == {
        "requests": ("rpm", 2, 60),
        "tokens": ("tpm", 100_000, 60),
        "concurrency": ("max_parallel_requests", 3, None),
    }


def test_on_wait_runs_in_the_context_of_its_call(router):
    name = contextvars.ContextVar("name")
    seen = []
    one = router(mock(max_parallel_requests=1), on_wait=lambda wait: seen.append((wait.priority, name.get())))

    async def call(number):
        name.set(number)
        await one.acompletion("gpt", MESSAGES, priority=number)

    async def calls():
        name.set("outer")
        async with one.permit("gpt"):
            tasks = [asyncio.ensure_future(call(number)) for number in (1, 2, 3)]
            await comes_about(lambda: len(seen) == 3)
        await asyncio.gather(*tasks)

    asyncio.run(calls())
    assert sorted(seen) == [(1, 1), (2, 2), (3, 3)]


def deliver_together(count):
    """The running loop takes its next news when there are so many of them."""
    loop = _waits._loops[asyncio.get_running_loop()]()
    inbox = loop._inbox

    class Held:
        def take(self):
            news = []
            until(lambda: news.extend(inbox.take()) or len(news) >= count)
            loop._inbox = inbox
            return news

    loop._inbox = Held()


def test_on_wait_that_cancels_does_not_lose_the_news_of_other_calls(router, caplog):
    one = router(mock(max_parallel_requests=1))
    others = []

    def cancels(wait):
        raise asyncio.CancelledError

    async def calls():
        async with one.permit("gpt"):
            first = asyncio.ensure_future(one.acompletion("gpt", MESSAGES, on_wait=cancels))
            second = asyncio.ensure_future(one.acompletion("gpt", MESSAGES, on_wait=others.append))
            await asyncio.sleep(0)
            deliver_together(2)
            await comes_about(lambda: others)
        await asyncio.wait_for(asyncio.gather(first, second), 30)

    asyncio.run(calls())
    assert len(others) == 1 and "on_wait failed" in caplog.text


def test_on_wait_that_exits_ends_the_loop_after_all_news(router):
    one = router(mock(max_parallel_requests=1))
    others = []

    def exits(wait):
        raise SystemExit(3)

    async def calls():
        async with one.permit("gpt"):
            each = [exits, others.append]
            tasks = [asyncio.ensure_future(one.acompletion("gpt", MESSAGES, on_wait=on_wait)) for on_wait in each]
            await asyncio.sleep(0)
            deliver_together(2)
            await asyncio.gather(*tasks)

    with pytest.raises(SystemExit):
        asyncio.run(calls())
    assert len(others) == 1


def test_on_wait_must_be_a_plain_function(router):
    async def coroutine(wait):
        pass

    class Call:
        async def __call__(self, wait):
            pass

    one = router()
    for wrong, said in [(5, "not int"), (coroutine, "plain function"), (Call(), "plain function")]:
        for call in [one.completion, one.permit, lambda *_, on_wait: router(on_wait=on_wait)]:
            arguments = ["gpt", MESSAGES] if call == one.completion else ["gpt"]
            with pytest.raises(TypeError, match=said):
                call(*arguments, on_wait=wrong)

"""Permits: slots for calls that a program makes by itself."""

from __future__ import annotations

import asyncio

import pytest
from conftest import MESSAGES, mock, until

from vorrang import exceptions


def used(router, name="gpt"):
    return router.status()[name]["deployments"][0]["used"]


def test_permit_counts_against_the_limits_and_is_corrected(router, shared):
    one = router({**mock(rpm=9, tpm=1000), "model_info": {"id": "mine"}}, **shared)

    async def use():
        async with one.permit("gpt", priority=5, tokens=800) as permit:
            assert (permit.deployment, permit.model, permit.api_base) == ("mine", "gpt-4o", None)
            assert permit._hidden_params["priority"] == 5 and permit._hidden_params["ticket"]["granted"] > 0
            permit.used((100, 20))

    asyncio.run(use())
    until(lambda: used(one)["tokens"] == 120)
    assert used(one)["requests"] == 1 and used(one)["output_tokens"] == 20
    one.completion("gpt", MESSAGES)


def test_permits_wait_in_the_queue_of_calls_by_priority(router):
    one = router(mock(max_parallel_requests=1))
    done = []

    async def call(name, priority):
        async with one.permit("gpt", priority=priority):
            done.append(name)

    async def all_of_them():
        async with one.permit("gpt"):
            tasks = [asyncio.ensure_future(call(*each)) for each in [("batch", 9), ("user", 0)]]
            tasks.append(asyncio.ensure_future(one.acompletion("gpt", MESSAGES, priority=20)))
            while one.status()["gpt"]["waiting_here"] < 3:
                await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert done == ["user", "batch"]


def test_permit_of_a_thread_ends_with_its_block_whatever_ends_it(router):
    one = router(mock(max_parallel_requests=1))
    for error in [None, ValueError("mine")]:
        try:
            with one.permit("gpt") as permit:
                until(lambda: used(one)["concurrency"] == 1)
                if error is not None:
                    raise error
        except ValueError as raised:
            assert raised is error
        with pytest.raises(RuntimeError, match="has ended"):
            permit.used(1)
        until(lambda: used(one)["concurrency"] == 0)


def test_cancelled_wait_for_a_permit_leaves_the_queue(router):
    one = router(mock(max_parallel_requests=1))

    async def use():
        async with one.permit("gpt"):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(one.permit("gpt").__aenter__(), 0.1)
        async with one.permit("gpt"):
            pass

    asyncio.run(use())
    until(lambda: one.status()["gpt"]["waiting_here"] == one.status()["gpt"]["in_flight_here"] == 0)


def test_time_that_is_up_and_unknown_models_raise_as_calls_do(router):
    one = router(mock(rpm=1))
    waits = []
    with one.permit("gpt"):
        pass
    with pytest.raises(exceptions.Timeout):
        one.permit("gpt", timeout=0.05, on_wait=waits.append).__enter__()
    assert [wait.model for wait in waits] == ["gpt"]
    with pytest.raises(exceptions.BadRequestError, match="nope"):
        one.permit("nope").__enter__()


def test_cooldown_of_a_permit_keeps_calls_from_the_deployment(router):
    one = router(mock())
    with one.permit("gpt") as permit:
        permit.cooldown(600)
    until(lambda: (one.status()["gpt"]["deployments"][0]["cooling"] or 0) > 500)
    with pytest.raises(exceptions.Timeout):
        one.completion("gpt", MESSAGES, timeout=0.05)


def test_failures_of_permits_cool_their_deployment(router):
    one = router(mock(), mock(), allowed_fails=1, cooldown_time=600)

    def cooling():
        return [each["cooling"] for each in one.status()["gpt"]["deployments"] if each["cooling"]]

    for _ in range(20):
        with one.permit("gpt") as permit:
            permit.failed(500)
        if cooling():
            break
    until(cooling)


def test_permit_of_a_call_that_was_not_sent_is_refunded(router):
    one = router(mock(rpm=1))
    with one.permit("gpt") as permit:
        permit.not_sent()
    assert one.completion("gpt", MESSAGES, timeout=5).choices


def test_decorated_functions_wait_for_a_permit_before_each_call(router):
    one = router(mock(rpm=3))

    @one.permit("gpt", priority=1)
    async def double(number):
        return 2 * number

    @one.permit("gpt", timeout=0.05)
    def triple(number):
        return 3 * number

    async def both():
        return await asyncio.gather(double(1), double(2))

    assert asyncio.run(both()) == [2, 4] and triple(1) == 3
    with pytest.raises(exceptions.Timeout):
        triple(1)


def test_permit_in_use_cannot_be_entered_again(router):
    context = router().permit("gpt")
    with context:
        with pytest.raises(RuntimeError, match="in use"):
            context.__enter__()
    with context:
        pass


def test_permit_that_is_waited_for_is_in_use(router):
    one = router(mock(max_parallel_requests=1))

    async def use():
        context = one.permit("gpt")
        async with one.permit("gpt"):
            first = asyncio.ensure_future(context.__aenter__())
            while one.status()["gpt"]["waiting_here"] == 0:
                await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="in use"):
                await context.__aenter__()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        # The wait that was cancelled does not count as use.
        async with context:
            pass

    asyncio.run(use())
    until(lambda: used(one)["concurrency"] == 0)


def test_generator_functions_cannot_be_decorated(router):
    one = router()

    def generator():
        yield 1

    async def asynchronous():
        yield 1

    class Callable:
        def __call__(self):
            yield 1

    for function in [generator, asynchronous, Callable()]:
        with pytest.raises(TypeError, match="generator function"):
            one.permit("gpt")(function)
    with pytest.raises(TypeError, match="decorates functions"):
        one.permit("gpt")(5)


def test_awaitable_of_a_plain_function_is_refused_and_one_of_an_async_call_is_held(router):
    one = router(mock(max_parallel_requests=1))

    async def concurrency():
        await asyncio.sleep(0)
        return used(one)["concurrency"]

    class Call:
        async def __call__(self):
            return await concurrency()

    with pytest.raises(TypeError, match="returned an awaitable"):
        one.permit("gpt")(lambda: concurrency())()
    until(lambda: used(one)["concurrency"] == 0)
    call = one.permit("gpt")(type("Named", (Call,), {"__name__": "named"})())
    assert asyncio.run(call()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": True},
        {"priority": "1"},
        {"priority": 1.5},
        {"priority": 2**31},
        {"tokens": -1},
        {"tokens": True},
        {"tokens": 1.5},
        {"tokens": (1, 2, 3)},
        {"tokens": (1, -2)},
        {"tokens": 2**64},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "5"},
        {"timeout": True},
        {"model": 5},
        {"model": "\ud800"},
    ],
    ids=ascii,
)
def test_wrong_arguments_of_a_permit_are_named_as_those_of_calls(router, wrong):
    one = router()
    with pytest.raises(exceptions.BadRequestError) as error:
        one.permit(**{"model": "gpt", **wrong})
    (name,) = wrong
    assert error.value.param == name and f"'{name}'" in str(error.value)
    if name in ("priority", "timeout"):
        with pytest.raises(exceptions.BadRequestError) as of_call:
            one.completion("gpt", MESSAGES, **wrong)
        assert of_call.value.param == name


def test_long_timeout_of_a_permit_and_wrong_tokens_of_its_call(router):
    with router().permit("gpt", timeout=1e300) as permit:
        with pytest.raises(ValueError, match="tokens"):
            permit.used(-1)

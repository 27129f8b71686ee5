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

"""The snippets of LiteLLM's page on request prioritisation, with nothing changed but the import."""

from __future__ import annotations

import subprocess
import sys

from conftest import PASSWORD

QUICK_START = """
from vorrang import Router
import asyncio, os

router = Router(
    model_list=[
        {
            "model_name": "gpt-3.5-turbo",
            "litellm_params": {
                "model": "gpt-3.5-turbo",
                "mock_response": "Hello world this is Macintosh!", # fakes the LLM API call
                "rpm": 1,
            },
        },
    ],
    timeout=2, # timeout request if takes > 2s
    routing_strategy="usage-based-routing-v2",
    polling_interval=0.03 # poll queue every 3ms if no healthy deployments
)

async def main():
    try:
        _response = await router.acompletion( # adds request to queue
            model="gpt-3.5-turbo",
            messages=[{"role": "user", "content": "Hey!"}],
            priority=0, # LOWER IS BETTER
        )
        print(_response.choices[0].message.content)
    except Exception as e:
        print("didn't make request")

    try:
        text = await router.atext_completion(model="gpt-3.5-turbo", prompt="Hey!", priority=0)
        print(text.choices[0].text)
    except Exception as e:
        print("didn't make request")

asyncio.run(main())
"""

FLEET = QUICK_START.replace(
    "    polling_interval=0.03 # poll queue every 3ms if no healthy deployments",
    """    polling_interval=0.03,
    redis_host=os.environ["REDIS_HOST"],
    redis_password=os.environ["REDIS_PASSWORD"],
    redis_port=os.environ["REDIS_PORT"],""",
)


def run(program, **env):
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines(), done.stderr


def test_quick_start_answers_and_second_call_times_out():
    lines, errors = run(QUICK_START)
    assert lines == ["Hello world this is Macintosh!", "didn't make request"], errors
    assert errors == ""


def test_snippet_with_redis_shares_the_limit_between_processes(redis_port):
    env = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis_port), "REDIS_PASSWORD": PASSWORD}
    assert run(FLEET, **env)[0] == ["Hello world this is Macintosh!", "didn't make request"]
    assert run(FLEET, **env)[0] == ["didn't make request", "didn't make request"]


def test_from_config_reads_litellms_file(tmp_path, redis_port, monkeypatch):
    from vorrang import Router

    monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("REDIS_PORT", str(redis_port))
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    file = tmp_path / "config.yaml"
    file.write_text(
        """
model_list:
  - model_name: gpt-3.5-turbo-fake-model
    litellm_params:
      model: gpt-3.5-turbo
      mock_response: "hello world!"
      api_key: my-good-key
litellm_settings:
  request_timeout: 600
router_settings:
  redis_host: os.environ/REDIS_HOST
  redis_password: os.environ/REDIS_PASSWORD
  redis_port: os.environ/REDIS_PORT
"""
    )
    with Router.from_config(file) as router:
        assert router.get_model_names() == ["gpt-3.5-turbo-fake-model"]
        response = router.completion("gpt-3.5-turbo-fake-model", [{"role": "user", "content": "hi"}], priority=0)
        assert response.choices[0].message.content == "hello world!"

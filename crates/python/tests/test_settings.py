"""Arguments of a Router: judged by the reader of files."""

from __future__ import annotations

import pytest
from conftest import MESSAGES, mock

from vorrang import Router, RouterSettings, exceptions


def test_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'polling'"):
        Router(model_list=[mock()], polling=1)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ValueError) as error:
        Router(model_list=[mock(rpm="many")], routing_strategy="fastest")
    assert "rpm" in str(error.value) and "routing_strategy" in str(error.value)


def test_setting_that_is_unsafe_to_ignore_is_refused():
    with pytest.raises(ValueError, match="enable_tag_filtering"):
        Router(model_list=[mock()], enable_tag_filtering=True)


def test_redis_topologies_are_read_by_the_rules_of_a_file():
    with pytest.raises(ValueError, match="cache_kwargs.startup_nodes.*expected a list"):
        Router(model_list=[mock()], redis_host="h", redis_port=6379, cache_kwargs={"startup_nodes": [{"host": ""}]})
    with pytest.raises(ValueError, match="sentinel_nodes.*service_name"):
        Router(model_list=[mock()], sentinel_nodes=[["h", 26379]])


def test_wrong_file_is_a_value_error_with_its_line(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model_list:\n- model_name: m\n  litellm_params: {model: gpt-4o, rpm: many}\n")
    with pytest.raises(ValueError, match=r"config.yaml.*3"):
        Router.from_config(file)
    with pytest.raises(ValueError, match="cannot be read"):
        Router.from_config(tmp_path / "none.yaml")


def test_value_that_is_no_json_is_a_type_error():
    with pytest.raises(TypeError, match="no value of JSON"):
        Router(model_list=[mock(rpm=object())])


@pytest.mark.parametrize("name", sorted(RouterSettings.__annotations__))
def test_every_argument_is_known_to_the_reader(router, caplog, name):
    try:
        router(mock(), **{name: {}})
    except ValueError as error:
        said = str(error)
    else:
        said = caplog.text
    assert "unknown" not in said, said


def test_none_is_not_given(router):
    one = router(mock(), redis_host=None, timeout=None, default_priority=None)
    assert one.completion("gpt", MESSAGES, temperature=None).choices[0].message.content == "Hello!"


def test_settings_of_other_sections_are_in_force(router):
    one = router(
        mock(rpm=1),
        vorrang_settings={"window_seconds": 3600, "max_queue_depth": 5},
        litellm_settings={"request_timeout": 5},
    )
    assert one.status()["gpt"]["deployments"][0]["limits"][0]["window_seconds"] == 3600
    with pytest.raises(ValueError, match="max_queue"):
        router(mock(), vorrang_settings={"max_queue": 1})


@pytest.mark.parametrize("name", ["vorrang_settings", "litellm_settings"])
@pytest.mark.parametrize("wrong", [[], "", 5, [("a", 1)]], ids=repr)
def test_section_that_is_no_mapping_is_a_type_error(name, wrong):
    with pytest.raises(TypeError, match=f"{name} must be a dict, not {type(wrong).__name__}"):
        Router(model_list=[mock()], **{name: wrong})


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "a\ud800b", ["\ud800"]], ids=ascii)
def test_field_of_a_call_that_is_no_json_is_a_bad_request_that_names_it(router, wrong):
    with pytest.raises(exceptions.BadRequestError, match="no JSON: 'user'") as error:
        router().completion("gpt", MESSAGES, user=wrong)
    assert (error.value.status_code, error.value.param) == (400, "user")


def test_field_of_a_call_that_holds_itself_is_a_bad_request(router):
    circle = {}
    circle["circle"] = circle
    with pytest.raises(exceptions.BadRequestError, match="no JSON: 'metadata'"):
        router().completion("gpt", MESSAGES, metadata=circle)

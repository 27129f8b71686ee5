"""The arguments of :class:`vorrang.Router`: those of LiteLLM's ``Router``."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, TypedDict, Union


class RouterSettings(TypedDict, total=False):
    """What LiteLLM's ``Router`` takes beside ``model_list``, and what a file may say in ``router_settings``.

    ``None`` means "not given". Times are in seconds. What is done otherwise here is logged as a warning when the router
    is made, what has no effect as information, and what would be unsafe to ignore is a ``ValueError``
    (``docs/migrating-from-litellm.md`` lists them).
    """

    redis_url: Optional[str]
    """``redis://``, ``unix://``, ``redis+sentinel://H1:PORT,H2:PORT/SERVICE``, ``redis+cluster://H1:PORT,H2:PORT``;
    with TLS ``rediss://``, ``rediss+sentinel://``, ``rediss+cluster://``.

    With a Redis the queue and all limits are those of all processes that share it.
    """
    redis_host: Optional[str]
    redis_port: Union[int, str, None]
    redis_password: Optional[str]
    redis_username: Optional[str]
    redis_db: Optional[int]
    redis_ssl: Optional[bool]
    redis_startup_nodes: Optional[Sequence[Any]]
    """Nodes of a cluster: ``[{"host": "h1", "port": 6379}, ...]``. Also as ``startup_nodes`` in ``cache_kwargs``."""
    startup_nodes: Optional[Sequence[Any]]
    redis_sentinel_nodes: Optional[Sequence[Any]]
    """Sentinels: ``[["h1", 26379], ...]``, with ``service_name``. Also as ``sentinel_nodes`` in ``cache_kwargs``."""
    sentinel_nodes: Optional[Sequence[Any]]
    redis_service_name: Optional[str]
    service_name: Optional[str]
    redis_sentinel_password: Optional[str]
    sentinel_password: Optional[str]
    cache_kwargs: Optional[Mapping[str, Any]]
    polling_interval: Optional[float]
    """How often a process whose calls wait asks whether one of them may go, where nothing tells it."""
    default_priority: Optional[int]
    """The priority of calls that name none: 0."""
    num_retries: Optional[int]
    """Attempts after the first: 2."""
    max_fallbacks: Optional[int]
    timeout: Optional[float]
    """The time of a call, in the queue and upstream."""
    stream_timeout: Optional[float]
    """The time of one attempt of a streamed call until its first event."""
    default_litellm_params: Optional[Dict[str, Any]]
    """``litellm_params`` of all deployments. They count before a deployment's own."""
    default_max_parallel_requests: Optional[int]
    default_fallbacks: Optional[Sequence[str]]
    fallbacks: Optional[Sequence[Mapping[str, Sequence[Any]]]]
    """``[{"gpt": ["gpt-mini"]}]``"""
    context_window_fallbacks: Optional[Sequence[Mapping[str, Sequence[Any]]]]
    content_policy_fallbacks: Optional[Sequence[Mapping[str, Sequence[Any]]]]
    model_group_alias: Optional[Mapping[str, Any]]
    retry_after: Optional[float]
    allowed_fails: Optional[int]
    cooldown_time: Optional[float]
    disable_cooldowns: Optional[bool]
    routing_strategy: Optional[str]
    """``simple-shuffle``, ``usage-based-routing-v2``, ``least-busy``, ``latency-based-routing``,
    ``cost-based-routing``.
    """
    routing_strategy_args: Optional[Mapping[str, Any]]

    # What follows is known, and has no effect or is refused.
    alerting_config: Any
    allowed_fails_policy: Any
    assistants_config: Any
    auto_router_capability_limit: Any
    background_health_check_model_groups: Any
    cache_responses: Optional[bool]
    caching_groups: Any
    client_ttl: Optional[int]
    debug_level: Optional[str]
    deployment_affinity_ttl_seconds: Optional[int]
    enable_health_check_routing: Optional[bool]
    enable_pre_call_checks: Optional[bool]
    enable_tag_filtering: Optional[bool]
    enable_weighted_failover: Optional[bool]
    fallback_access_check: Any
    fallback_budget_check: Any
    fallback_on_unsupported_params: Optional[bool]
    guardrail_list: Any
    health_check_ignore_transient_errors: Optional[bool]
    health_check_staleness_threshold: Optional[int]
    ignore_invalid_deployments: Optional[bool]
    model_group_affinity_config: Any
    model_group_retry_policy: Any
    optional_pre_call_checks: Optional[List[str]]
    plugins: Any
    provider_budget_config: Any
    retry_policy: Any
    router_general_settings: Any
    routing_groups: Any
    search_tools: Any
    set_verbose: Optional[bool]
    tag_filtering_match_any: Optional[bool]
    tag_routing_prefix: Optional[str]

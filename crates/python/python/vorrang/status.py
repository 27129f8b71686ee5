"""The types of :meth:`vorrang.Router.status`."""

from __future__ import annotations

from typing import List, Optional, TypedDict


class Used(TypedDict):
    """What the whole fleet uses of a deployment, in its longest window."""

    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    concurrency: int
    """Calls on their way."""


class Limit(TypedDict):
    """One limit of a deployment."""

    name: str
    """The setting: ``rpm``, or ``limits[0]``."""
    kind: str
    """``requests``, ``tokens``, ``input_tokens``, ``output_tokens`` or ``concurrency``."""
    limit: int
    window_seconds: Optional[float]
    """The length of its sliding window; ``None`` for calls on their way."""


class DeploymentStatus(TypedDict):
    """One deployment."""

    id: str
    used: Used
    limits: List[Limit]
    cooling: Optional[float]
    """Seconds until its cooldown ends; ``None``: it does not cool."""


class GroupStatus(TypedDict):
    """One group (``model_name``).

    A process that has had no call for a while hears nothing of the fleet: then the fleet's numbers are 0.
    """

    ready: bool
    """Whether calls can be granted: a session is open, and Redis answers."""
    waiting: int
    """Calls that wait in the whole fleet."""
    waiting_here: int
    """Those of them that this process made."""
    in_flight_here: int
    """Calls of this process on their way."""
    next_free: Optional[float]
    """Seconds until the first that waits can go, if that is known."""
    reasons: List[str]
    """What the first that waits is waiting for: kinds of limits, ``cooldown``, ``probing``, ``pacing``, ``reserve``."""
    deployments: List[DeploymentStatus]

"""LiteLLM's ``Router`` with right of way: calls of LLMs wait in one queue, ordered by (priority, arrival).

>>> from vorrang import Router
>>> params = {"model": "gpt-4o", "mock_response": "Hello!"}
>>> router = Router(model_list=[{"model_name": "gpt", "litellm_params": params}])
>>> messages = [{"role": "user", "content": "Hey!"}]
>>> router.completion(model="gpt", messages=messages, priority=0).choices[0].message.content
'Hello!'

The lower the priority, the sooner. With ``redis_host`` or ``redis_url`` the queue is that of all processes.
"""

from . import exceptions
from ._waits import Wait
from .permits import Permit, PermitContext
from .responses import (
    EmbeddingResponse,
    ModelResponse,
    ModelResponseStream,
    Object,
    TextCompletionResponse,
    Usage,
)
from .router import Router
from .settings import RouterSettings
from .status import DeploymentStatus, GroupStatus
from .streams import AsyncStream, Stream

__all__ = [
    "AsyncStream",
    "DeploymentStatus",
    "EmbeddingResponse",
    "GroupStatus",
    "ModelResponse",
    "ModelResponseStream",
    "Object",
    "Permit",
    "PermitContext",
    "Router",
    "RouterSettings",
    "Stream",
    "TextCompletionResponse",
    "Usage",
    "Wait",
    "exceptions",
]

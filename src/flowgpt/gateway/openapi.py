"""/openapi.json: the endpoints in OpenAPI 3.1, made from the classes that read requests and write answers.

What is written without a class has one here, and tests compare it with what is answered. What becomes of each parameter
is said in its description and in `x-flowgpt-handling`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..formats.anthropic import answer as messages_answer
from ..formats.anthropic import request as messages_request
from ..formats.openai import (
    chat,
    chat_request,
    completions,
    responses_events,
    responses_items,
    responses_request,
)
from ..formats.openai.models import Model, ModelList
from ..formats.parameters import rows
from ..version import __version__

STATUSES: Mapping[int, str] = {
    400: "The request is wrong; `param` names its part.",
    401: "No key, or a wrong one.",
    403: "Another site's page asks.",
    404: "There is no such model, response or route.",
    405: "The route has no such method.",
    408: "The request's body came too slowly.",
    413: "The request is too large.",
    415: "The content type is not application/json.",
    421: "The gateway does not answer for this host.",
    429: "Too many requests here or of the service, or no credit left there.",
    500: "A fault of the gateway.",
    501: "FlowGPT cannot do this.",
    502: "The service failed, or its answer broke off.",
    503: "Refused here: shutting down, too much at once, or the store does not work.",
    504: "The service took too long.",
}
"""What a refused or failed request is answered with."""

GUARDED = (400, 403, 405, 421, 500)
ENTERING = (*GUARDED, 401, 503)
READING = (404, 408, 413, 415, 429)
ANSWERING = (502, 504)

IMPOSSIBLE = (
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/moderations",
)
"""What programs ask for that FlowGPT cannot do; there is more, all answered alike."""


class OpenAIError(msgspec.Struct):
    """What went wrong. `code` is stable; `partial_text` is what had come of an answer that broke off."""

    message: str
    type: str
    param: str | None
    code: str
    partial_text: str | msgspec.UnsetType = msgspec.UNSET


class OpenAIErrorObject(msgspec.Struct):
    """A failure, as OpenAI's API tells it."""

    error: OpenAIError


class Health(msgspec.Struct):
    """ "ok", "ready", or why not."""

    status: str


class Deleted(msgspec.Struct):
    """The response is stored no more."""

    id: str
    object: str
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. `asked`, `answered`: the classes of its bodies. `events`: of its stream."""

    method: str
    path: str
    id: str
    words: str
    asked: type[msgspec.Struct] | None = None
    answered: Any = None
    events: Any = None
    statuses: Sequence[int] = ENTERING
    public: bool = False
    query: Mapping[str, Any] | None = None

    @property
    def error(self) -> type[msgspec.Struct]:
        """The class of its error objects."""
        return messages_answer.ErrorResponse if self.path.startswith("/v1/messages") else OpenAIErrorObject

    @property
    def kinds(self) -> list[Any]:
        """All classes that it speaks of."""
        return [kind for kind in (self.asked, self.answered, self.events, self.error) if kind is not None]


def _question(path: str, id_: str, words: str, asked: Any, answered: Any, events: Any) -> Operation:
    statuses = (*ENTERING, *READING, *ANSWERING)
    return Operation(
        method="post", path=path, id=id_, words=words, asked=asked, answered=answered, events=events, statuses=statuses
    )


def _read(path: str, id_: str, words: str, answered: Any, *more: int, **rest: Any) -> Operation:
    statuses = rest.pop("statuses", (*ENTERING, *more))
    return Operation(method="get", path=path, id=id_, words=words, answered=answered, statuses=statuses, **rest)


PAGING: Mapping[str, Any] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "order": {"enum": ["asc", "desc"], "default": "desc"},
    "after": {"type": "string"},
}

RESPONSE = "/v1/responses/{id}"

OPERATIONS = (
    _question(
        "/v1/chat/completions",
        "createChatCompletion",
        "Ask, in the form of OpenAI's chat completions.",
        chat_request.ChatRequest,
        chat.ChatCompletion,
        chat.ChatCompletionChunk,
    ),
    _question(
        "/v1/responses",
        "createResponse",
        "Ask, in the form of OpenAI's Responses API.",
        responses_request.ResponsesRequest,
        responses_events.Response,
        responses_events.StreamEvent,
    ),
    _question(
        "/v1/messages",
        "createMessage",
        "Ask, in the form of Anthropic's Messages API.",
        messages_request.MessagesRequest,
        messages_answer.Message,
        messages_answer.StreamEvent,
    ),
    _question(
        "/v1/completions",
        "createCompletion",
        "Ask, in the form of OpenAI's legacy completions.",
        completions.CompletionRequest,
        completions.Completion,
        completions.Completion,
    ),
    Operation(
        method="post",
        path="/v1/messages/count_tokens",
        id="countMessageTokens",
        words="Estimate what a prompt would cost.",
        asked=messages_request.CountTokensRequest,
        answered=messages_answer.TokensCount,
        statuses=(*ENTERING, *READING),
    ),
    _read("/v1/models", "listModels", "The models, their aliases, and the foreign names that are known.", ModelList),
    _read("/v1/models/{id}", "retrieveModel", "One model.", Model, 404),
    _read(RESPONSE, "getResponse", "A stored response.", responses_events.Response, 404),
    Operation(
        method="delete",
        path=RESPONSE,
        id="deleteResponse",
        words="Forget a stored response.",
        answered=Deleted,
        statuses=(*ENTERING, 404),
    ),
    _read(
        f"{RESPONSE}/input_items",
        "listInputItems",
        "What a stored response answers.",
        responses_items.ItemList,
        404,
        query=PAGING,
    ),
    _read("/healthz", "getHealth", "Whether the process serves.", Health, public=True, statuses=GUARDED),
    _read("/readyz", "getReadiness", "Whether new work is taken.", Health, public=True, statuses=GUARDED),
    _read("/metrics", "getMetrics", "Figures for Prometheus.", None),
    _read("/openapi.json", "getDescription", "This document.", dict[str, Any]),
    *(
        Operation(
            method="post",
            path=path,
            id=f"no{path.title().replace('/', '')}",
            words="Not here.",
            statuses=(*ENTERING, 501),
        )
        for path in IMPOSSIBLE
    ),
)


@functools.cache
def encoded() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """The whole description."""
    kinds = list(dict.fromkeys(kind for operation in OPERATIONS for kind in operation.kinds))
    shown, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(kinds, shown, strict=True))
    for operation in OPERATIONS:
        if operation.asked is not None:
            name = schema_of[operation.asked]["$ref"].rpartition("/")[2]
            _tell_handling(schemas[name]["properties"], operation.asked)
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flowgpt's gateway",
            "version": __version__,
            "description": "FlowGPT's models for programs that speak OpenAI's or Anthropic's API. Unofficial.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": SECURITY_SCHEMES, "headers": HEADERS},
    }


SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}

SECURITY: Sequence[Mapping[str, Sequence[str]]] = ({}, {"bearer": []}, {"x-api-key": []})
"""No key is asked for as long as none exists."""


def _header(words: str, type_: str = "string") -> dict[str, Any]:
    return {"description": words, "schema": {"type": type_}}


HEADERS = {
    "x-request-id": _header("The request's own, when it had a proper one; else a fresh one."),
    "openai-processing-ms": _header("From the request's head to the answer's, in milliseconds.", "integer"),
    "x-flowgpt-ignored": _header("The parameters of the request that had no effect."),
    "x-flowgpt-emulated": _header("The parameters of the request that the gateway did, since FlowGPT cannot."),
    "x-should-retry": _header("`false` where the same request would fail again."),
    "retry-after": _header("After how many seconds to ask again.", "integer"),
}

EVERY = ("x-request-id", "openai-processing-ms")


def _operation(operation: Operation, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": operation.id, "summary": operation.words}
    names = [("path", "id", {"type": "string"})] if "{id}" in operation.path else []
    names += [("query", name, schema) for name, schema in (operation.query or {}).items()]
    if names:
        told["parameters"] = [
            {"in": place, "name": name, "required": place == "path", "schema": schema} for place, name, schema in names
        ]
    if operation.asked is not None:
        told["requestBody"] = {"required": True, "content": _json(schema_of[operation.asked])}
    good = {"200": _answer(operation, schema_of)} if 501 not in operation.statuses else {}
    bad = {str(status): _failure(status, schema_of[operation.error]) for status in sorted(operation.statuses)}
    if operation.path == "/readyz":
        either = {"anyOf": [schema_of[Health], schema_of[operation.error]]}  # the latter when the store does not work
        bad["503"] = {**good["200"], "description": "No new work is taken.", "content": _json(either)}
    return {**told, "security": [] if operation.public else SECURITY, "responses": {**good, **bad}}


def _answer(operation: Operation, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    more = ("x-flowgpt-ignored", "x-flowgpt-emulated") if operation.events is not None else ()
    content: dict[str, Any] = (
        {"text/plain": {"schema": {"type": "string"}}}
        if operation.answered is None
        else _json(schema_of[operation.answered])
    )
    if operation.events is not None:
        content["text/event-stream"] = {"schema": _event(schema_of[operation.events])}
    return {"description": "The answer.", "headers": _headers(*EVERY, *more), "content": content}


def _event(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Each event of a stream, in the form that readers of OpenAPI 3.1 take it in."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {
        "type": "object",
        "description": "With `stream`: server-sent events; OpenAI's older two APIs end theirs with [DONE].",
        "properties": {"event": {"type": "string"}, "data": {"anyOf": [{"const": "[DONE]"}, data]}},
        "required": ["data"],
    }


def _failure(status: int, schema: Mapping[str, Any]) -> dict[str, Any]:
    more = ("retry-after",) if status in (429, 503) else ("x-should-retry",)
    return {"description": STATUSES[status], "headers": _headers(*EVERY, *more), "content": _json(schema)}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _tell_handling(properties: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    for name, row in rows(kind).items():
        properties[name]["description"] = f"{row.handling}: {row.words}"
        properties[name]["x-flowgpt-handling"] = row.handling

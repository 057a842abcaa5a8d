"""/openapi.json: a valid description, of all routes and no other, that true answers agree with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import pytest
from starlette.routing import Route

from flowgpt.formats.parameters import rows
from flowgpt.gateway import openapi
from flowgpt.gateway.failures import STATUSES, Refusal
from tests.gateway.conftest import Answer, Serve, Served

DOCUMENT: Any = json.loads(openapi.encoded())
SCHEMAS: Mapping[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "gpt-3.5-turbo", "messages": MESSAGES}
TOOL = {"name": "add", "parameters": {"type": "object"}}

ANSWERED = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", CHAT | {"n": 2, "temperature": 0, "stop": ["xyz"]}),
    ("POST", "/v1/chat/completions", CHAT | {"messages": []}),
    ("POST", "/v1/chat/completions", CHAT | {"model": "nobody knows"}),
    ("POST", "/v1/completions", {"model": "gpt-3.5-turbo", "prompt": "Hello"}),
    ("POST", "/v1/completions", {"model": "gpt-3.5-turbo", "prompt": "Hello", "echo": True}),
    ("POST", "/v1/responses", {"model": "gpt-3.5-turbo", "input": "Hello", "metadata": {"a": "b"}}),
    ("POST", "/v1/responses", {"model": "gpt-3.5-turbo", "input": "Hello", "background": True}),
    ("POST", "/v1/messages", CHAT | {"max_tokens": 100}),
    ("POST", "/v1/messages", CHAT),
    ("POST", "/v1/messages/count_tokens", CHAT),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/gemini", None),
    ("GET", "/v1/models/nobody", None),
    ("GET", "/v1/responses/resp_nobody", None),
    ("DELETE", "/v1/responses/resp_nobody", None),
    ("GET", "/v1/responses/resp_nobody/input_items", None),
    ("GET", "/v1/responses/resp_nobody/input_items?limit=0", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    *(("POST", path, {}) for path in openapi.IMPOSSIBLE),
]


def operation_of(method: str, path: str) -> Any:
    """What the document says of a request."""
    route = re.sub(r"^(/v1/(?:models|responses))/[^/]+", r"\1/{id}", path.partition("?")[0])
    return OPERATIONS[method, route]


def check(schema: Mapping[str, Any], value: Any) -> None:
    jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, value)


def every(node: Any) -> Iterator[dict[str, Any]]:
    """All objects in the document."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from every(inner)


def follow(ref: str) -> Any:
    found = DOCUMENT
    for name in ref.removeprefix("#/").split("/"):
        found = found[name]
    return found


def test_every_reference_leads_somewhere() -> None:
    refs = {node["$ref"] for node in every(DOCUMENT) if isinstance(node.get("$ref"), str)}

    assert len(refs) > 50
    assert all(isinstance(follow(ref), dict) for ref in refs)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_a_json_schema_and_its_defaults_are_valid(name: str) -> None:
    """As OpenAPI 3.1 wants it; openapi-spec-validator has no more to say of the rest."""
    assert re.fullmatch(r"[A-Za-z0-9]+", name)  # with a dot it would be a module's path, of two classes of one name
    jsonschema_rs.meta.validate(SCHEMAS[name])
    for property_ in SCHEMAS[name].get("properties", {}).values():
        if "default" in property_:
            check(property_, property_["default"])


def test_every_operation_has_an_id_of_its_own_and_a_good_answer() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]

    assert len(set(ids)) == len(ids)
    assert all({"200", "501"} & operation["responses"].keys() for operation in OPERATIONS.values())


def test_the_routes_are_described_and_no_others(gateway: Served) -> None:
    routed = {
        (method, route.path.replace(":path", ""))
        for route in gateway.app._router.routes
        if isinstance(route, Route) and "rest" not in route.path
        for method in (route.methods or set()) - {"HEAD"}
    }

    assert routed == {(method, path) for method, path in OPERATIONS if path not in openapi.IMPOSSIBLE}


def test_the_statuses_of_failures_are_described() -> None:
    question = OPERATIONS["POST", "/v1/chat/completions"]["responses"]

    assert {str(status) for status, _ in STATUSES.values()} <= question.keys()


@pytest.mark.parametrize("kind", [operation.asked for operation in openapi.OPERATIONS if operation.asked])
def test_what_becomes_of_a_parameter_is_said(kind: Any) -> None:
    properties = SCHEMAS[kind.__name__]["properties"]

    assert {name: shown["x-flowgpt-handling"] for name, shown in properties.items()} == {
        name: row.handling for name, row in rows(kind).items()
    }


@pytest.mark.parametrize(("method", "path", "body"), ANSWERED)
def test_a_true_answer_is_as_described(gateway: Served, method: str, path: str, body: Any) -> None:
    agrees(gateway.request(method, path, body), operation_of(method, path))


@pytest.mark.parametrize(("method", "path", "body"), ANSWERED)
def test_what_the_guard_refuses_is_as_described(gateway: Served, method: str, path: str, body: Any) -> None:
    answer = gateway.request(method, path, body, {"host": "two words"})

    assert answer.status == 400
    agrees(answer, operation_of(method, path))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_another_method_is_refused_as_described(gateway: Served, path: str) -> None:
    answer = gateway.request("GET", path)

    assert answer.status == 405
    agrees(answer, operation_of("POST", path))


def agrees(answer: Answer, operation: Any) -> None:
    described = operation["responses"][str(answer.status)]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in described["content"]
    assert described["headers"].keys() & {"x-request-id"} <= answer.headers.keys()
    if kind == "application/json":
        check(described["content"][kind]["schema"], answer.json)


def test_a_stored_response_and_its_items_are_as_described(gateway: Served) -> None:
    made = gateway.request("POST", "/v1/responses", {"model": "gpt-3.5-turbo", "input": "Hello"}).json["id"]

    for method, path in (("GET", ""), ("GET", "/input_items"), ("DELETE", "")):
        answer = gateway.request(method, f"/v1/responses/{made}{path}")
        assert answer.status == 200
        agrees(answer, operation_of(method, f"/v1/responses/{made}{path}"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"stream_options": {"include_usage": True}}),
        ("/v1/completions", {"model": "gpt-3.5-turbo", "prompt": "Hello"}),
        ("/v1/responses", {"model": "gpt-3.5-turbo", "input": "Hello"}),
        ("/v1/messages", CHAT | {"max_tokens": 100}),
    ],
)
def test_the_events_of_a_stream_are_as_described(gateway: Served, path: str, body: Any) -> None:
    answer = gateway.request("POST", path, body | {"stream": True})
    content = OPERATIONS["POST", path]["responses"]["200"]["content"]["text/event-stream"]
    _, data = content["schema"]["properties"]["data"]["anyOf"]

    assert len(answer.chunks) > 2
    for event in answer.chunks:
        check(data["contentSchema"], event)


def test_a_request_as_described_is_taken(gateway: Served) -> None:
    """The other way round is schemathesis' (tests/clients)."""
    body = CHAT | {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "none", "user": None}

    check(OPERATIONS["POST", "/v1/chat/completions"]["requestBody"]["content"]["application/json"]["schema"], body)
    assert gateway.request("POST", "/v1/chat/completions", body).status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_gateway_that_drains_answers_as_described(serve: Serve, path: str) -> None:
    gateway = serve()
    gateway.call(gateway.app.drain)

    for method, asked in (("POST", path), ("GET", "/readyz")):
        answer = gateway.request(method, asked, CHAT | {"max_tokens": 9} if method == "POST" else None)
        assert answer.status == 503
        agrees(answer, operation_of(method, asked))


def test_every_status_that_is_described_has_words() -> None:
    described = {int(status) for operation in OPERATIONS.values() for status in operation["responses"]} - {200}

    assert described == set(openapi.STATUSES)
    assert Refusal(421, "x", "y").problem.status in described

"""Requests made from descriptions, valid and not: from the gateway's own /openapi.json, and from OpenAI's.

No answer, streamed or not, may be a fault of the server's, nor differ from its description.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from flowgpt.embedded import Server
from flowgpt.formats.parameters import rows
from flowgpt.gateway import dialects, openapi
from tests.clients.conftest import MODEL, Gateway, serving

ANCHOR = Path(__file__).parents[1] / "anchors" / "openai-openapi-subset.json"

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


def ours() -> Any:
    """Without what is a 501 by design: what FlowGPT cannot do."""
    description = json.loads(openapi.encoded())
    paths = {
        path: operations
        for path, operations in description["paths"].items()
        if not any("501" in operation["responses"] for operation in operations.values())
    }
    return schemathesis.openapi.from_dict(description | {"paths": paths})


def openais() -> Any:
    """What the gateway takes of it, asked for properly: the rest is refused, and the boundary cases are tried on ours.

    Without its slips: the one error body that it describes has no `error` around it, as the API's have; legacy
    completions do not stream; and the values of its discriminators are the names of schemas.
    """
    description = json.loads(ANCHOR.read_text("utf-8"), object_hook=_without_discriminator)
    schemas = description["components"]["schemas"]
    for name, dialect in ASKED.items():
        _forget(schemas, name, [row.name for row in rows(dialect.request).values() if row.handling == "refused"])
    schemas["CreateResponse"]["required"] = ["model", "input"]
    paths = description["paths"]
    del paths["/responses/{response_id}"]["delete"]["responses"]["404"]["content"]
    paths["/completions"]["post"]["responses"]["200"]["content"]["text/event-stream"] = {}
    config = {"phases": {"coverage": {"enabled": False}}, "generation": {"mode": "positive"}}
    return schemathesis.openapi.from_dict(description, config=schemathesis.Config.from_dict(config))


def _without_discriminator(value: dict[str, Any]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if name != "discriminator"}


ASKED = {
    "CreateChatCompletionRequest": dialects.CHAT,
    "CreateResponse": dialects.RESPONSES,
    "CreateCompletionRequest": dialects.COMPLETIONS,
}


def _forget(schemas: dict[str, Any], name: str, properties: Sequence[str]) -> None:
    """Take the properties out of a schema, and out of those that it is composed of."""
    for part in [schemas[name], *schemas[name].get("allOf", ())]:
        for forgotten in properties:
            part.get("properties", {}).pop(forgotten, None)
        if "$ref" in part:
            _forget(schemas, part["$ref"].rpartition("/")[2], properties)


bounded = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def any_model(_upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that answers for any model: a description cannot know which there are."""
    with serving(_upstream, tmp_path_factory.mktemp("any"), "--any-model", MODEL) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def stored(any_model: Gateway) -> str:
    """The id of a stored response."""
    body = json.dumps({"model": MODEL, "input": "Hello"}).encode()
    asked = urllib.request.Request(
        f"{any_model.base_url}/responses", body, {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(asked) as answer:
        return str(json.load(answer)["id"])


@ours().parametrize()
@bounded
def test_our_description_holds(case: Any, any_model: Gateway, stored: str) -> None:
    _find(case, stored)
    case.call_and_validate(base_url=any_model.origin, checks=CHECKS)


@openais().parametrize()
@bounded
def test_openais_description_holds(case: Any, any_model: Gateway, stored: str) -> None:
    _find(case, stored)
    case.call_and_validate(base_url=any_model.base_url, checks=CHECKS)


def _find(case: Any, stored: str) -> None:
    """Let what is read be what exists; what is deleted does not."""
    if case.method == "GET" and "/responses/" in case.path:
        case.path_parameters = dict.fromkeys(case.path_parameters, stored)


def test_the_description_is_the_one_that_is_served(gateway: Gateway) -> None:
    with urllib.request.urlopen(f"{gateway.origin}/openapi.json") as answer:
        assert answer.read() == openapi.encoded()

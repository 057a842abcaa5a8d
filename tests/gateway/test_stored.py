"""Stored responses: a conversation that goes on, over a restart too, and nothing of it for anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowgpt.embedded import Server
from flowgpt.errors import InvalidRequestError
from flowgpt.formats.openai.responses_encoder import ResponsesEncoder
from flowgpt.formats.openai.responses_request import ResponsesRequest
from flowgpt.formats.parameters import read
from flowgpt.formats.pieces import End, Facts, ToolCall, Turn
from flowgpt.gateway import stored
from flowgpt.gateway.failures import Refusal
from flowgpt.gateway.settings import Settings
from flowgpt.store import Store
from tests.gateway.conftest import Answer, Serve, Served
from tests.openai_description import faults

numbers = itertools.count(1)


def request(**parameters: Any) -> ResponsesRequest:
    return read(json.dumps({"model": "m", "input": "Hello"} | parameters).encode(), ResponsesRequest).values


def answered(asked: ResponsesRequest, *, created: int | None = None) -> ResponsesEncoder:
    """An answer to it, ended: "Hi." and a call."""
    facts = Facts(
        new_id=lambda prefix: f"{prefix}{next(numbers)}",
        created=int(time.time()) if created is None else created,
        model="m",
        prompt_characters=5,
    )
    encoder = ResponsesEncoder(facts, asked)
    encoder.whole([["Hi.", ToolCall("call_1", "add", "{}"), End("tool_calls")]])
    return encoder


async def kept(store: Store | None, owner: str = "ann", /, *, created: int | None = None, **parameters: Any) -> str:
    """Answer a request and keep it; the response's id."""
    asked = request(**parameters)
    before = await stored.earlier(store, owner, asked)
    encoder = answered(asked, created=created)
    await stored.keep(store, owner, asked, encoder, before, Settings())
    return encoder.id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "flowgpt.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path)) as store:
        yield store


SAID = [Turn(role="user", text="Hello"), Turn(role="assistant", text="Hi.", calls=(ToolCall("call_1", "add", "{}"),))]


def test_a_conversation_goes_on_without_the_instructions_and_after_a_restart(path: Path) -> None:
    async def begin() -> str:
        with contextlib.closing(Store(path)) as store:
            first = await kept(store, instructions="Be brief.")
            return await kept(store, previous_response_id=first, input="Once more")

    async def go_on(id_: str) -> list[Turn]:
        with contextlib.closing(Store(path)) as store:
            return await stored.earlier(store, "ann", request(previous_response_id=id_))

    again = [Turn(role="user", text="Once more"), SAID[1]]
    assert asyncio.run(go_on(asyncio.run(begin()))) == [*SAID, *again]


def test_who_names_no_response_has_no_past(opened: Store) -> None:
    assert asyncio.run(stored.earlier(opened, "ann", request())) == []


@pytest.mark.parametrize("id_", ["resp_none", "", "' OR 1=1 --", "\x00", "resp_" + "x" * 100_000])
def test_m7_a_past_that_is_unknown_is_refused_with_its_parameter(opened: Store, id_: str) -> None:
    asyncio.run(kept(opened))
    for store in (opened, None):
        with pytest.raises(Refusal) as caught:
            asyncio.run(stored.earlier(store, "ann", request(previous_response_id=id_)))

        problem = caught.value.problem
        assert (problem.status, problem.code) == (400, "previous_response_not_found")
        assert problem.param == "previous_response_id"
        assert len(problem.message) < 300


def test_a_response_is_shown_as_it_was_answered(opened: Store) -> None:
    asked = request(metadata={"a": "b"})
    encoder = answered(asked)

    async def act() -> bytes:
        await stored.keep(opened, "ann", asked, encoder, [], Settings())
        return await stored.get(opened, "ann", encoder.id)

    shown = json.loads(asyncio.run(act()))
    assert shown == encoder.response.model_dump()
    assert faults(shown, "Response") == []


def unknown(asking: Any) -> None:
    with pytest.raises(Refusal) as caught:
        asyncio.run(asking)
    assert (caught.value.problem.status, caught.value.problem.code) == (404, "response_not_found")


def test_another_keys_response_does_not_exist(opened: Store) -> None:
    id_ = asyncio.run(kept(opened, "ann"))

    for owner in ("bob", "", "ANN"):
        unknown(stored.get(opened, owner, id_))
        unknown(stored.delete(opened, owner, id_))
        unknown(stored.input_items(opened, owner, id_, b""))
        with pytest.raises(Refusal, match="there is no response"):
            asyncio.run(stored.earlier(opened, owner, request(previous_response_id=id_)))
    assert asyncio.run(stored.get(opened, "ann", id_))


def test_what_was_deleted_is_gone(opened: Store) -> None:
    id_ = asyncio.run(kept(opened))

    told = json.loads(asyncio.run(stored.delete(opened, "ann", id_)))

    assert told == {"id": id_, "object": "response", "deleted": True}
    unknown(stored.get(opened, "ann", id_))
    unknown(stored.delete(opened, "ann", id_))


@pytest.mark.parametrize("age_days", [29, 31])
def test_n18_a_response_is_kept_for_its_time(opened: Store, age_days: int) -> None:
    id_ = asyncio.run(kept(opened, created=int(time.time()) - age_days * 86400))

    if age_days > Settings().retention_days:
        unknown(stored.get(opened, "ann", id_))
    else:
        assert json.loads(asyncio.run(stored.get(opened, "ann", id_)))["id"] == id_


def test_what_may_not_be_kept_is_not(opened: Store) -> None:
    unknown(stored.get(opened, "ann", asyncio.run(kept(opened, store=False))))
    unknown(stored.get(None, "ann", asyncio.run(kept(None))))
    unknown(stored.delete(None, "ann", "resp_1"))
    unknown(stored.input_items(None, "ann", "resp_1", b""))


def test_n5_an_answer_that_cannot_be_kept_is_an_answer_nevertheless(
    opened: Store, caplog: pytest.LogCaptureFixture
) -> None:
    opened.close()

    id_ = asyncio.run(kept(opened, input="a secret question"))

    assert f"{id_} was answered and could not be stored: store_error" in caplog.text
    assert "secret" not in caplog.text


def items(store: Store, id_: str, query: bytes = b"") -> dict[str, Any]:
    page: dict[str, Any] = json.loads(asyncio.run(stored.input_items(store, "ann", id_, query)))
    assert faults(page, "ResponseItemList") == []
    return page


def test_the_input_is_listed_from_its_end_page_by_page(opened: Store) -> None:
    said = [{"role": "user", "content": str(number)} for number in range(5)]
    id_ = asyncio.run(kept(opened, input=said))

    page = items(opened, id_, b"limit=2")
    rest = items(opened, id_, f"after={page['last_id']}&limit=100&include=x".encode())
    upward = items(opened, id_, b"order=asc")

    ids = [f"msg_{id_.removeprefix('resp_')}_{number}" for number in range(5)]
    assert ([item["id"] for item in page["data"]], page["has_more"]) == ([ids[4], ids[3]], True)
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == ([ids[2], ids[1], ids[0]], False)
    assert [item["content"][0]["text"] for item in upward["data"]] == [*"01234"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"limit=0", "limit"),
        (b"limit=101", "limit"),
        (b"limit=-1", "limit"),
        (b"limit=" + b"9" * 10_000, "limit"),
        (b"limit=%d9%a3", "limit"),
        (b"order=up", "order"),
        (b"after=msg_0", "after"),
        (b"after=\xff%ff%00", "after"),
    ],
)
def test_i5_a_wrong_query_names_its_parameter(opened: Store, query: bytes, param: str) -> None:
    id_ = asyncio.run(kept(opened))

    with pytest.raises(InvalidRequestError) as caught:
        items(opened, id_, query)

    assert caught.value.param == param


# Over a real socket


def ask(gateway: Served, question: str = "Hello", **parameters: Any) -> Answer:
    return gateway.request("POST", "/v1/responses", {"model": "gpt-3.5-turbo", "input": question} | parameters)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_id_of_an_answer_can_be_used_as_soon_as_it_is_known(
    gateway: Served, upstream: Server, *, stream: bool
) -> None:
    first = ask(gateway, "My name is Ann.", stream=stream, instructions="Be brief.")
    response = first.chunks[-1]["response"] if stream else first.json
    said = response["output"][0]["content"][0]["text"]

    second = ask(gateway, "What is it?", previous_response_id=response["id"])

    assert (second.status, second.json["previous_response_id"]) == (200, response["id"])
    body = json.loads(upstream.requests[-1].body)
    assert [body["history"][0]["content"], body["history"][1]["content"]] == ["My name is Ann.", said]
    assert (body["question"], body["system"]) == ("What is it?", "")


def test_a_response_is_got_listed_and_deleted_over_http(gateway: Served) -> None:
    made = ask(gateway).json
    address = f"/v1/responses/{made['id']}"

    got, listed = gateway.request("GET", address), gateway.request("GET", f"{address}/input_items?limit=1")
    deleted, gone = gateway.request("DELETE", address), gateway.request("GET", address)

    assert (got.status, got.json) == (200, made)
    assert [item["content"][0]["text"] for item in listed.json["data"]] == ["Hello"]
    assert (deleted.status, deleted.json["deleted"]) == (200, True)
    assert (gone.status, gone.json["error"]["code"]) == (404, "response_not_found")


def test_a_stored_response_survives_a_restart_of_the_gateway(serve: Serve) -> None:
    id_ = ask(serve()).json["id"]

    with contextlib.closing(Store()) as store:  # the same file, opened by another gateway
        again = serve({"store": store})

        assert again.request("GET", f"/v1/responses/{id_}").json["id"] == id_
        assert ask(again, previous_response_id=id_).status == 200


def test_an_unknown_past_is_400_over_http(gateway: Served) -> None:
    answer = ask(gateway, previous_response_id="resp_none")

    assert (answer.status, answer.json["error"]["param"]) == (400, "previous_response_id")
    assert answer.json["error"]["code"] == "previous_response_not_found"

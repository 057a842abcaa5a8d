"""Stored responses: the conversation that a request goes on from, what is kept of an answer, and what is shown of it.

Small functions over a `Store`, without HTTP; None stands for no store, in which nothing is found or kept. `owner`: the
name of a key, or "": another's response does not exist. The store blocks, so each call of it gets a thread (N16).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ..errors import InvalidRequestError, StoreError
from ..formats.openai.responses_encoder import ResponsesEncoder, conversation
from ..formats.openai.responses_items import item_list, items
from ..formats.openai.responses_request import ResponsesRequest
from ..formats.pieces import Encoder, Turn
from ..store import Store, StoredResponse
from .failures import Refusal
from .settings import Settings

log = logging.getLogger(__name__)

DAY_S = 24 * 60 * 60
LIMIT = re.compile(r"[1-9][0-9]?|100")


async def earlier(store: Store | None, owner: str, request: ResponsesRequest) -> list[Turn]:
    """The conversation of previous_response_id, when there is one. Raises: Refusal 400; StoreError."""
    asked = request.previous_response_id
    if asked is None:
        return []
    record = await _find(store, owner, asked)
    if record is None:
        words = f"previous_response_id: there is no response {asked[:64]!a}"
        raise Refusal(400, "previous_response_not_found", words, param="previous_response_id")
    return msgspec.json.decode(record.turns, type=list[Turn])


async def keep(
    store: Store | None,
    owner: str,
    request: ResponsesRequest,
    encoder: Encoder,
    earlier: Sequence[Turn],
    settings: Settings,
) -> None:
    """Keep an answer that has ended, if it may be kept. One that cannot be is not to be found later; no more."""
    assert isinstance(encoder, ResponsesEncoder)
    if store is None or request.store is False:
        return
    response = encoder.response
    record = StoredResponse(
        id=response.id,
        owner=owner,
        created_s=response.created_at,
        expires_s=response.created_at + settings.retention_days * DAY_S,
        body=msgspec.json.encode(response),
        input_items=msgspec.json.encode(items(request.input, response.id.removeprefix("resp"))),
        turns=msgspec.json.encode(conversation(request, response, earlier)),
    )
    try:
        await asyncio.to_thread(store.put_response, record)
    except StoreError as error:
        with contextlib.suppress(Exception):  # a strange handler's fault is not the request's
            log.warning("%s was answered and could not be stored: %s", response.id, error.code)


async def get(store: Store | None, owner: str, id: str) -> bytes:  # noqa: A002  # as in OpenAI's API
    """A stored Response. Raises: Refusal 404; StoreError."""
    return (await _found(store, owner, id)).body


async def delete(store: Store | None, owner: str, id: str) -> bytes:  # noqa: A002  # as in OpenAI's API
    """Delete a response, and say so. Raises: Refusal 404; StoreError."""
    if store is None or not await asyncio.to_thread(store.delete_response, id, owner):
        raise _unknown(id)
    return msgspec.json.encode({"id": id, "object": "response", "deleted": True})


async def input_items(store: Store | None, owner: str, id: str, query: bytes) -> bytes:  # noqa: A002  # as above
    """A page of what a response was asked, by `limit` (1 to 100), `order` and `after`.

    Raises: Refusal 404; InvalidRequestError for a wrong query; StoreError.
    """
    asked = dict(parse_qsl(query.decode("latin-1")))
    limit, order = asked.get("limit", "20"), asked.get("order", "desc")
    if not LIMIT.fullmatch(limit):
        raise InvalidRequestError("limit: a whole number from 1 to 100", param="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequestError("order: asc or desc", param="order")
    kept: list[dict[str, Any]] = msgspec.json.decode((await _found(store, owner, id)).input_items)
    return msgspec.json.encode(item_list(kept, limit=int(limit), order=order, after=asked.get("after")))


async def _find(store: Store | None, owner: str, id_: str) -> StoredResponse | None:
    return None if store is None else await asyncio.to_thread(store.response, id_, owner, time.time())


async def _found(store: Store | None, owner: str, id_: str) -> StoredResponse:
    record = await _find(store, owner, id_)
    if record is None:
        raise _unknown(id_)
    return record


def _unknown(id_: str) -> Refusal:
    return Refusal(404, "response_not_found", f"there is no response {id_[:64]!a}")

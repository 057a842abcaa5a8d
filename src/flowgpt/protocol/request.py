"""The request's addresses and body: a conversation to bytes, and back. No sockets, no headers.

Source: docs/protocol.md#endpoints, #request-body.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import InvalidRequestError

PUBLIC_ORIGIN = "https://prod-backend-k8s.flowgpt.com"
ANONYMOUS_PATH = "/v3/chat-anonymous"
SIGNED_IN_PATH = "/v3/chat"
PROMPT_PATH = "/prompt/{id}/"
CONVERSATION_PATH = "/conversation/create"

LIMIT_BODY_BYTES = 8 * 1024 * 1024
"""Ours: the service's limit is unknown. Far above any model's context, and it keeps a mistake from being sent."""

_strict = json.JSONEncoder(allow_nan=False).encode
"""Refuses what msgspec's encoder would send as something else: NaN as null, bytes as base64."""


class Turn(msgspec.Struct, frozen=True):
    """One turn: `role` is "user", "assistant" or "system"; FlowGPT's history has no system turns."""

    role: str
    content: str


class Prompt(msgspec.Struct, frozen=True):
    """What a message list says, in FlowGPT's words."""

    question: str
    history: tuple[Turn, ...] = ()
    system: str = ""


class ChatRequest(msgspec.Struct, frozen=True):
    """A whole chat request. `signed_in`: for /v3/chat, which has two fields more and one less."""

    model: str
    prompt: Prompt
    temperature: float = 0.7
    nsfw: bool = False
    prompt_id: str | None = None
    document_ids: tuple[str, ...] = ()
    generate_image: bool = False
    signed_in: bool = False
    user_id: str = ""
    conversation_id: str = ""
    extra: Mapping[str, Any] = {}

    @property
    def path(self) -> str:
        return SIGNED_IN_PATH if self.signed_in else ANONYMOUS_PATH


def prompt_from_messages(messages: Iterable[Any], *, greeting: str | None = None) -> Prompt:
    """Map a message list as the seed does; nothing is mutated, spliced or invented.

    System messages are joined by a newline; the last other message is the question whatever its role; the others
    before it are the history. With system messages alone, the last of them is the question.
    `greeting`: an assistant turn put before the history.
    Raises: InvalidRequestError, naming the message that is wrong.
    """
    turns = turns_from_messages(messages)
    system = [turn.content for turn in turns if turn.role == "system"]
    spoken = [turn for turn in turns if turn.role != "system"]
    question = spoken.pop().content if spoken else system.pop()
    if greeting is not None:
        spoken.insert(0, Turn("assistant", greeting))
    return Prompt(question, tuple(spoken), "\n".join(system))


def turns_from_messages(messages: Iterable[Any]) -> list[Turn]:
    """The messages, checked, each with its content as one string; the role `developer` is read as `system`.

    Raises: InvalidRequestError, naming the message that is wrong.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InvalidRequestError("messages must be a list of {role, content} dicts")
    turns = [_turn(index, message) for index, message in enumerate(messages)]
    if not turns:
        raise InvalidRequestError("messages is empty: there is nothing to ask")
    return turns


def _turn(index: int, message: Any) -> Turn:
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"messages[{index}] must be a dict with role and content")
    role, content = message.get("role"), message.get("content")
    if role is None or content is None:
        missing = "role" if role is None else "content"
        raise InvalidRequestError(f"messages[{index}] has no {missing}")
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequestError(f"messages[{index}].role must be user, assistant or system, not {_shown(role)}")
    if isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        content = "".join(_part(index, place, part) for place, part in enumerate(content))
    if not isinstance(content, str):
        raise InvalidRequestError(f"messages[{index}].content must be a string or a list of text parts")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"messages[{index}].content has a lone surrogate at character {error.start}"
        ) from None
    return Turn("system" if role == "developer" else role, content)


def _part(index: int, place: int, part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise InvalidRequestError(
        f"messages[{index}].content[{place}] is {_shown(kind)}: FlowGPT takes text parts only",
        hint='use {"type": "text", "text": ...}',
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def encode(request: ChatRequest) -> bytes:
    """The JSON body. Raises: InvalidRequestError for a value that is no JSON, or a body over LIMIT_BODY_BYTES."""
    body: dict[str, Any] = {
        "model": request.model,
        "nsfw": request.nsfw,
        "question": request.prompt.question,
        "history": [{"role": turn.role, "content": turn.content} for turn in request.prompt.history],
        "system": request.prompt.system,
        "temperature": request.temperature,
        "promptId": request.prompt_id or f"model-{request.model}",
        "documentIds": list(request.document_ids),
        "generateImage": request.generate_image,
        "generateAudio": False,
    }
    if request.signed_in:
        body |= {"userId": request.user_id, "conversationId": request.conversation_id}
    else:
        body["chatFileDocumentIds"] = []
    return json_body(body, request.extra)


def json_body(body: Mapping[str, Any], extra: Mapping[str, Any]) -> bytes:
    """A body's bytes, `extra` in front of its fields where both have one; all but `extra` and `temperature` is JSON.

    Raises: InvalidRequestError for a value that is no JSON, or a body over LIMIT_BODY_BYTES.
    """
    try:
        if not abs(body["temperature"]) <= sys.float_info.max:  # NaN, and integers that no float can hold
            raise ValueError("temperature is not finite")
        if extra:
            _strict(dict(extra))
        data = msgspec.json.encode({**body, **extra})
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the request is not JSON: {error}") from None
    if len(data) > LIMIT_BODY_BYTES:
        raise InvalidRequestError(
            f"the request has {len(data)} bytes, and the limit is {LIMIT_BODY_BYTES}",
            code="payload_too_large",
            hint="shorten the history",
        )
    return data


def decode(data: bytes, *, signed_in: bool) -> ChatRequest:
    """Read a body as the service would: every documented field present and of its type, unknown ones kept in `extra`.

    Raises: InvalidRequestError, naming the field.
    """
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequestError("the body is not a JSON object")

    def take(name: str, kind: type | tuple[type, ...], words: str) -> Any:
        value = body.pop(name, None)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InvalidRequestError(f"{name} must be {words}")
        return value

    def strings(name: str) -> tuple[str, ...]:
        values = take(name, list, "a list of strings")
        if not all(isinstance(value, str) for value in values):
            raise InvalidRequestError(f"{name} must be a list of strings")
        return tuple(values)

    history = _history(take("history", list, "a list of turns"))
    prompt = Prompt(take("question", str, "a string"), history, take("system", str, "a string"))
    temperature = take("temperature", (int, float), "a number")
    if not abs(temperature) <= sys.float_info.max:  # NaN, and integers that no float can hold
        raise InvalidRequestError("temperature must be a finite number")
    request = ChatRequest(
        model=take("model", str, "a string"),
        prompt=prompt,
        temperature=temperature,
        nsfw=take("nsfw", bool, "true or false"),
        prompt_id=take("promptId", str, "a string"),
        document_ids=strings("documentIds"),
        generate_image=take("generateImage", bool, "true or false"),
        signed_in=signed_in,
        user_id=take("userId", str, "a string") if signed_in else "",
        conversation_id=take("conversationId", str, "a string") if signed_in else "",
        extra=body,
    )
    take("generateAudio", bool, "true or false")
    if not signed_in:
        strings("chatFileDocumentIds")
    return request


def _history(turns: list[Any]) -> tuple[Turn, ...]:
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
            raise InvalidRequestError(f"history[{index}] must have the role user or assistant")
        if not isinstance(turn.get("content"), str):
            raise InvalidRequestError(f"history[{index}].content must be a string")
    return tuple(Turn(turn["role"], turn["content"]) for turn in turns)

"""OpenAI's batch files: a line of the input as a question, an answer or a failure as a line of the output. Values only.

Source: OpenAI's Batch API, the "request input object" and the "request output object". A line may also be plain:
{"prompt": …}. Ours in the output: `line`, the number of the input's line; in an answer `ignored`, the parameters
without effect; in an error `param`, `retriable` and `partial_text`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from ...errors import FlowGPTError, InvalidRequestError
from ..parameters import decode, honoured, read, wrong
from ..pieces import Ask, Turn
from ..values import Value
from .chat import ChatCompletion
from .chat_request import ChatRequest, Temperature, ask

URL = "/v1/chat/completions"

LIMIT_LINE_BYTES = 8 * 1024 * 1024
"""The longest line of the input; as much as a request may have."""

ID_PREFIX = "batch_req_"


class RequestLine(msgspec.Struct, kw_only=True):
    """A line in OpenAI's form."""

    custom_id: Annotated[str | None, honoured("names the row in the output; no two rows have the same")] = None
    method: Annotated[Literal["POST"], honoured("POST")] = "POST"
    url: Annotated[Literal["/v1/chat/completions"], honoured(URL)]
    body: Annotated[dict[str, Any], honoured("as docs/parameters.md says of chat completions")]


class PromptLine(msgspec.Struct, kw_only=True):
    """A line in the plain form."""

    prompt: Annotated[str, honoured("the question")]
    system: Annotated[str | None, honoured("the system prompt")] = None
    model: Annotated[str | None, honoured("who answers")] = None
    temperature: Annotated[Temperature | None, honoured("0 to 2")] = None
    custom_id: Annotated[str | None, honoured("names the row in the output; no two rows have the same")] = None
    id: Annotated[str | int | None, honoured("the same, when there is no `custom_id`")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the input. `line`: its number, from 1. `id`: of its number and bytes.

    `custom_id`: the line's own, or `line-N`; `named`: whether it is its own. `ask`: the question, or what is wrong
    with the line. `ignored`: the names of parameters without effect.
    """

    line: int
    id: str
    custom_id: str
    named: bool
    ask: Ask | InvalidRequestError
    ignored: tuple[str, ...] = ()


def row_id(line: bytes, number: int) -> str:
    """The same for the same line at the same place, and for no other."""
    return ID_PREFIX + hashlib.blake2b(line, digest_size=12, salt=number.to_bytes(8)).hexdigest()


def read_row(line: bytes, number: int) -> Row:
    """A line of the input, without its end. Whatever it is, it is a row; what is wrong with it is in `ask`."""
    name = None
    question: Ask | InvalidRequestError
    ignored: tuple[str, ...] = ()
    try:
        if len(line) > LIMIT_LINE_BYTES:
            raise InvalidRequestError(f"the line has more than {LIMIT_LINE_BYTES:,} bytes", code="payload_too_large")
        try:
            members = decode(line)
        except InvalidRequestError as error:
            raise InvalidRequestError(error.message.replace("the body", "the line", 1)) from None
        name = _name(members)
        question, ignored = _question(line, members)
    except InvalidRequestError as error:
        question = error.with_traceback(None)
    return Row(
        line=number,
        id=row_id(line, number),
        custom_id=name or f"line-{number}",
        named=name is not None,
        ask=question,
        ignored=ignored,
    )


def _name(members: dict[str, Any]) -> str | None:
    name = members.get("custom_id")
    if name is None and "prompt" in members:
        name = members.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        return f"{name:d}" if abs(name) < 1 << 63 else None
    return name if isinstance(name, str) and name else None


def _question(line: bytes, members: dict[str, Any]) -> tuple[Ask, tuple[str, ...]]:
    """What is asked, and what of it has no effect. Raises: InvalidRequestError."""
    if "body" not in members and "prompt" not in members:
        raise InvalidRequestError("the line has neither a `body` nor a `prompt`")
    if "body" not in members:
        plain = read(line, PromptLine)
        said = plain.values
        turns = [Turn(role="system", text=said.system)] if said.system else []
        turns.append(Turn(role="user", text=said.prompt))
        return Ask(model=said.model or "", turns=turns, temperature=said.temperature), plain.ignored
    if members.get("url") not in (None, URL):
        raise wrong("url", f"a batch asks {URL} only", "unsupported_parameter")
    outer = read(line, RequestLine)
    request = read(json.dumps({"model": ""} | outer.values.body).encode(), ChatRequest)
    question = ask(request.values)
    for param, asked in (("n", question.n > 1), ("tools", question.tools), ("response_format", question.output)):
        if asked:
            raise wrong(param, "not in a batch: the gateway has it", "unsupported_parameter")
    streamed = ("stream",) if request.values.stream else ()
    return question, (*outer.ignored, *request.ignored, *streamed)


# --- the output -------------------------------------------------------------------------------------------------------


class Response(Value, frozen=True, kw_only=True, omit_defaults=True):
    """An answer. `request_id`: that of `body`."""

    status_code: int
    request_id: str
    body: ChatCompletion
    ignored: tuple[str, ...] = ()


class Failure(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Why there is no answer. `retriable`: whether the row may be answered when it is asked again.

    `partial_text`: what had come of an answer that was cut.
    """

    code: str
    message: str
    param: str | None = None
    retriable: bool = False
    partial_text: str = ""


class OutputLine(Value, frozen=True, kw_only=True):
    """A line of the output: of `response` and `error`, one is null."""

    id: str
    custom_id: str
    line: int
    response: Response | None
    error: Failure | None


_json = msgspec.json.Encoder().encode


def answer_line(row: Row, completion: ChatCompletion) -> bytes:
    """The row's line of the output, its newline included."""
    response = Response(status_code=200, request_id=completion.id, body=completion, ignored=row.ignored)
    return _line(row, response, None)


def failure_line(row: Row, error: FlowGPTError, *, retriable: bool) -> bytes:
    """The row's line of the output, its newline included. `retriable`: whether the failure may pass."""
    failure = Failure(
        code=error.code,
        message=error.message,
        param=getattr(error, "param", None),
        retriable=retriable,
        partial_text=error.partial_text,
    )
    return _line(row, None, failure)


def _line(row: Row, response: Response | None, failure: Failure | None) -> bytes:
    return (
        _json(OutputLine(id=row.id, custom_id=row.custom_id, line=row.line, response=response, error=failure)) + b"\n"
    )


class _FailureRead(msgspec.Struct):
    code: str
    retriable: bool = False


class ResultRead(msgspec.Struct):
    """What a line of the output says of its row."""

    id: Annotated[str, msgspec.Meta(pattern=f"^{ID_PREFIX}[0-9a-f]{{24}}$")]
    line: Annotated[int, msgspec.Meta(ge=1)]
    error: _FailureRead | None


_result = msgspec.json.Decoder(ResultRead).decode


def read_result(line: bytes) -> ResultRead:
    """A line of the output, without its end. Raises: InvalidRequestError for any other text."""
    try:
        return _result(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidRequestError("this is no line of a batch's output") from None


def is_torn(rest: bytes) -> bool:
    """Whether the bytes after the last newline are the beginning of a line of ours, as a kill or a power cut leaves it.

    Some file systems leave zeros instead.
    """
    begin = b'{"id":"' + ID_PREFIX.encode()
    return begin.startswith(rest[: len(begin)]) or not rest.strip(b"\0")

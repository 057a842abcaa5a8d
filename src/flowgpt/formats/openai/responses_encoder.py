"""OpenAI's Responses API: an answer's pieces as a Response or as its events, and the conversation that they continue.

Values and bytes only; ids and time come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .. import sse
from ..estimate import size, tokens
from ..pieces import End, Facts, Piece, Problem, ToolCall, Turn
from .chat import error_object
from .chat_request import ResponseFormatText
from .responses_events import (
    ArgumentsDelta,
    ArgumentsDone,
    ContentPartAdded,
    ContentPartDone,
    ErrorEvent,
    IncompleteDetails,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseUsage,
    StreamEvent,
)
from .responses_items import FunctionCall, OutputItem, OutputMessage, OutputText, Status, items, turns
from .responses_request import ResponsesRequest, TextConfig


def conversation(request: ResponsesRequest, response: Response, earlier: Sequence[Turn]) -> list[Turn]:
    """What the next request goes on from: all that was said, without the instructions."""
    return [*earlier, *turns(items(request.input)), *turns(response.output)]


class ResponsesEncoder:
    """One answer, as a Response or as its events. An `Encoder`; there is only ever one answer.

    `response`: the answer so far; after its `End` came in, all of it.
    """

    def __init__(self, facts: Facts, request: ResponsesRequest) -> None:
        self.id = facts.new_id("resp_")
        self.response = _begun(self.id, facts, request)
        self._facts = facts
        self._sequence = 0
        self._characters = 0
        self._output: list[OutputItem] = []
        self._item_id = ""
        self._texts: list[str] = []
        self._head = b""  # while a message is open: what stands before each text

    def start(self) -> bytes:
        out: list[bytes] = []
        self._emit(out, ResponseCreated, response=self.response)
        self._emit(out, ResponseInProgress, response=self.response)
        return b"".join(out)

    def pieces(self, pieces: Sequence[Piece], index: int = 0) -> bytes:
        out: list[bytes] = []
        for piece in pieces:
            self._characters += size(piece)
            if isinstance(piece, str):
                if piece:
                    head = self._head or self._open_message(out)
                    out += head, _json(piece), b',"sequence_number":%d}\n\n' % self._sequence
                    self._sequence += 1
                    self._texts.append(piece)
            elif isinstance(piece, ToolCall):
                self._close_message(out, "completed")
                self._call(out, piece)
            elif isinstance(piece, End):
                self._finish(out, piece)
        return b"".join(out)

    def end(self) -> bytes:
        out: list[bytes] = []
        kind = ResponseCompleted if self.response.status == "completed" else ResponseIncomplete
        self._emit(out, kind, response=self.response)
        return b"".join(out)

    def failure(self, problem: Problem) -> bytes:
        out: list[bytes] = []
        error = error_object(problem)["error"]
        self._emit(out, ErrorEvent, code=problem.code, message=problem.message, param=problem.param, error=error)
        return b"".join(out)

    def whole(self, answers: Sequence[Sequence[Piece]]) -> bytes:
        (pieces,) = answers
        self.pieces(pieces)
        return _json(self.response)

    def _emit(self, out: list[bytes], kind: type[StreamEvent], **fields: Any) -> None:
        event = kind(**fields, sequence_number=self._sequence)
        out.append(sse.encode(_json(event), str(event.__struct_config__.tag)))
        self._sequence += 1

    def _open_message(self, out: list[bytes]) -> bytes:
        self._item_id = id_ = self._facts.new_id("msg_")
        place = len(self._output)
        self._emit(
            out, OutputItemAdded, output_index=place, item=OutputMessage(id=id_, content=[], status="in_progress")
        )
        self._emit(out, ContentPartAdded, output_index=place, item_id=id_, part=OutputText(text=""))
        delta = OutputTextDelta(item_id=id_, output_index=place, delta="", sequence_number=0)
        self._head = sse.encode(_json(delta), str(delta.__struct_config__.tag)).partition(b'""')[0]
        return self._head

    def _close_message(self, out: list[bytes], status: Status) -> None:
        if not self._head:
            return
        at: dict[str, Any] = {"item_id": self._item_id, "output_index": len(self._output)}
        part = OutputText(text="".join(self._texts))
        self._emit(out, OutputTextDone, text=part.text, **at)
        self._emit(out, ContentPartDone, part=part, **at)
        self._done(out, OutputMessage(id=self._item_id, content=[part], status=status))
        self._head, self._texts = b"", []

    def _call(self, out: list[bytes], call: ToolCall) -> None:
        item = FunctionCall(
            id=self._facts.new_id("fc_"), call_id=call.id, name=call.name, arguments="", status="in_progress"
        )
        at: dict[str, Any] = {"item_id": item.id, "output_index": len(self._output)}
        self._emit(out, OutputItemAdded, output_index=len(self._output), item=item)
        self._emit(out, ArgumentsDelta, delta=call.arguments, **at)
        self._emit(out, ArgumentsDone, name=call.name, arguments=call.arguments, **at)
        self._done(out, msgspec.structs.replace(item, arguments=call.arguments, status="completed"))

    def _done(self, out: list[bytes], item: OutputItem) -> None:
        self._emit(out, OutputItemDone, output_index=len(self._output), item=item)
        self._output.append(item)

    def _finish(self, out: list[bytes], end: End) -> None:
        """The end of the only answer: its items are closed, and the whole of it is known."""
        if not self._head and not self._output:  # clients look for the text of the first item
            self._open_message(out)
        status: Status = "incomplete" if end.reason in ("length", None) else "completed"
        self._close_message(out, status)
        asked, answered = tokens(self._facts.prompt_characters), tokens(self._characters)
        self.response = msgspec.structs.replace(
            self.response,
            status=status,
            incomplete_details=IncompleteDetails() if end.reason == "length" else None,
            output=[*self._output],
            usage=ResponseUsage(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered),
        )


def _begun(id_: str, facts: Facts, request: ResponsesRequest) -> Response:
    form = request.text.format if request.text else None
    return Response(
        id=id_,
        created_at=facts.created,
        model=facts.model,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        temperature=request.temperature,
        text=TextConfig(format=form or ResponseFormatText()),
        tool_choice=request.tool_choice or "auto",
        tools=request.tools or [],
    )


_json = msgspec.json.Encoder().encode

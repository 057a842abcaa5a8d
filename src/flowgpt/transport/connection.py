"""The HTTP client's connection, and what it leaves out: faults that it would sleep through, or take for an answer.

This leans on the client's inner parts, as do pool.py (its connectors) and `Exchange._cut`;
tests/transport/test_connection.py guards each of them.
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientOSError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

LIMIT_INTERIM_HEADS = 32
"""Heads with a status of 1xx before the real one; a service has no reason to send more than one or two."""


class Connection(ResponseHandler):
    """One connection; `_answer` is the body of the answer that is awaited or under way (None: no head yet)."""

    _answer: Any = None
    _asked = False
    _interim_heads = 0
    _wire: Any = None

    def connection_made(self, transport: Any) -> None:
        self._wire = transport
        super().connection_made(transport)

    def abort(self) -> None:
        """Close the socket now. TLS is otherwise closed in steps that may outlive the loop."""
        if self._wire is not None:
            self._wire.abort()

    def set_exception(self, exc: Any, *cause: Any) -> None:
        """Called by the client for what is no HTTP, and by us. It then closes twice, after which TLS knows no abort."""
        super().set_exception(exc, *cause)
        self.abort()

    def set_response_params(self, **params: Any) -> None:
        """Called by the client before each request."""
        self._answer, self._asked, self._interim_heads = None, True, 0
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called by the parser for each head: (head, body)."""
        head, body = data
        if 100 <= head.code < 200 and head.code != 101:
            self._interim_heads += 1
            if self._interim_heads == LIMIT_INTERIM_HEADS + 1:
                self.set_exception(HttpProcessingError(message="too many interim heads"))
        else:
            self._answer = body
        if self.exception() is None:
            super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if data and self._asked and self._answer is not None and self._answer.is_eof():
            self.close()  # an idle connection: these bytes would be taken for the next request's answer
            return
        while self._answer is None and self._asked and self.exception() is None and (end := data.find(b"\r\n\r\n")) > 0:
            super().data_received(data[: end + 4])  # the head by itself: it counts even if what follows is garbage
            data = data[end + 4 :]
            if not data:
                return
        super().data_received(data)
        fault = self.exception()
        if fault is not None and self._answer is not None and not self._answer.is_eof():
            self._answer.set_exception(fault)  # a fault in the body, which the client tells to nobody

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called by the body for each HTTP chunk taken out: waking what is not paused costs as much as reading it."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self._answer is not None and not self._answer.is_eof():
            self._answer.set_exception(ClientOSError(*exc.args))  # a reset is no end, of whatever form the body is
            self._payload = None
        super().connection_lost(exc)

"""What the gateway notes of one request: who came, what was answered, and how long it took. Never what was said.

The one record that the access log, the metrics and the traces are made of.
"""

from __future__ import annotations

import msgspec


class Visit(msgspec.Struct, kw_only=True):
    """One request. Times in seconds from its beginning; None for what has not happened.

    `route`: one of the gateway's own names, never the raw path. `owner`: the key's name, "" for none.
    `code`: the failure's, None when there was none. `reason`: why the answer ended (the last of `n`), as in pieces.End.
    `ignored`: parameters without effect. `prompt_characters` counts instructions too.
    """

    request_id: str
    method: str
    route: str = "other"
    started_s: float
    owner: str = ""
    requested_model: str = ""
    model: str = ""
    stream: bool = False
    n: int = 1
    status: int | None = None
    code: str | None = None
    reason: str | None = None
    attempts: int = 0
    first_text_s: float | None = None
    total_s: float | None = None
    texts: int = 0
    characters: int = 0
    prompt_characters: int = 0
    ignored: tuple[str, ...] = ()
    traceparent: str | None = None

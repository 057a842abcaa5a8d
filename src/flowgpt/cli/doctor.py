"""`flowgpt doctor`: is all well between this machine and the service? One request at most, said before it is sent.

The checks are in checks.py; here is what is asked of the user, sent, and written, and the report for a bug.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from .. import config
from ..errors import FlowGPTError, InvalidRequestError
from ..messages import Message
from ..providers.flowgpt import FlowGpt
from ..transport import Call
from ..transport.probe import Outcome, probe
from ..version import __version__
from . import ask, checks, streams
from .checks import Check
from .endpoint import Endpoint, endpoint, unstarted
from .explain import shown

LIMIT_S = 30.0
QUESTION: Sequence[Message] = [{"role": "user", "content": "Hello"}]


def _diagnose(
    base_url: str | None, proxy: str | None, model: str | None, timeout: float, *, dry_run: bool, yes: bool
) -> tuple[str | None, list[Check]]:
    """The name of who was asked, if that is known, and all checks. Raises: InvalidRequestError, click.Abort."""
    found = checks.local()
    if found[0].state == "fail":
        return None, found + checks.unsent("not reached")

    def prepared(there: Endpoint) -> Call:
        return FlowGpt.call(model or "", QUESTION, proxy=there.proxy, base_url=there.base_url, timeout=timeout)[0]

    try:
        there = unstarted(base_url, proxy)
        call = prepared(there)
    except InvalidRequestError as error:
        return None, [checks.failed("configuration", error), *found[1:], *checks.unsent("not reached")]
    if dry_run:
        _announce("this request would be sent", call)
    free = yes or _is_here(call)
    if dry_run or not (free or _confirmed(call)):
        return there.name, found + checks.unsent("not sent")
    try:
        with endpoint(base_url, proxy, tell=streams.note) as there:
            call = prepared(there)
            if free:  # or else it was said already
                _announce("one request is sent now", call)
            outcome = asyncio.run(probe(call))
    except FlowGPTError as error:  # the embedded server did not start
        outcome = Outcome(error)
    return there.name, found + checks.judge(call, outcome)


def _is_here(call: Call) -> bool:
    """Whether the request stays on this machine."""
    proxy = call.options.proxy
    return config.is_loopback(call.origin) and (proxy is None or config.is_loopback(proxy.url))


def _confirmed(call: Call) -> bool:
    """Whether the user wants it sent. Raises: InvalidRequestError when nobody can be asked; click.Abort."""
    if streams.piped() or sys.stdin is None:
        raise InvalidRequestError(
            f"{call.origin} is not this machine, and nobody is here to allow the request",
            hint="--yes allows it, --dry-run checks without it",
        )
    _announce("one request would be sent, to a service that is not this machine", call)
    streams.note("flowgpt is unofficial, and the service has terms of its own.")
    return click.confirm("Send it?", err=True)


def _announce(words: str, call: Call) -> None:
    """What is sent, before it is."""
    request = shown(call)
    way = f" through {request['proxy']}" if request["proxy"] else ""
    streams.note(f"flowgpt: {words}{way}: {request['method']} {request['url']}")
    streams.note(f"headers: {', '.join(request['headers'])}")
    streams.note(f"body: {request['body']}")


# --- what is written ------------------------------------------------------------------------------------------------


def _masked(text: str) -> str:
    """Without what points to the user: the service may repeat the device id, and paths begin with the home."""
    home = os.path.expanduser("~").rstrip(os.sep)
    text = text.replace(config.device_id(), "***")
    return text.replace(home, "~") if home else text


def _lines(found: list[Check], width: int) -> str:
    """A check a paragraph, its next step under it."""
    lines = []
    for check in found:
        seconds = "" if check.seconds is None else f" ({check.seconds:.2f} s)"
        parts = [(f"{check.state:<8}", f"{check.name}: {check.words}{seconds}"), (" " * 8, f"hint: {check.hint}")]
        for first, text in parts if check.hint else parts[:1]:
            lines += textwrap.wrap(
                text,
                width,
                initial_indent=first,
                subsequent_indent=" " * 10,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines) + "\n"


def _report(name: str | None, found: list[Check]) -> str:
    """A text for a bug report: versions, platform, who was asked, the checks."""
    libraries = ", ".join(f"{library} {version(library)}" for library in ("aiohttp", "msgspec", "click"))
    facts = f"platform: {platform.platform()}\nlibraries: {libraries}\nendpoint: {name or 'not known'}\n"
    return f"flowgpt doctor, {__version__}\n{facts}\n{_lines(found, sys.maxsize)}"


def _doctor(
    model: str | None,
    base_url: str | None,
    proxy: str | None,
    timeout: float,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    report: str | None,
) -> None:
    if as_json and report == "-":
        raise click.UsageError("--json and --report - both want standard output")
    name, found = _diagnose(base_url, proxy, model, timeout, dry_run=dry_run, yes=yes)
    found = [check._replace(words=_masked(check.words), hint=check.hint and _masked(check.hint)) for check in found]
    if report == "-":
        streams.write(_report(name, found))
    else:
        streams.write(_json(name, found) if as_json else streams.plain(_lines(found, streams.columns() or sys.maxsize)))
        if report is not None:
            Path(report).write_text(_report(name, found), "utf-8")
    if code := next((check.exit_code for check in found if check.state == "fail"), 0):
        raise click.exceptions.Exit(code)


def _json(name: str | None, found: list[Check]) -> str:
    public = ("name", "state", "words", "hint", "seconds")
    rows: list[dict[str, Any]] = [{key: getattr(check, key) for key in public} for check in found]
    return json.dumps({"flowgpt": __version__, "endpoint": name, "checks": rows}) + "\n"


command = click.Command(
    "doctor",
    callback=_doctor,
    params=[
        *(row for row in ask.command.params if row.name in {"model", "base_url", "proxy"}),
        click.Option(
            ["--timeout"],
            type=float,
            default=LIMIT_S,
            show_default=True,
            metavar="SECONDS",
            help="seconds for the request",
        ),
        click.Option(["--yes"], is_flag=True, help="send the request, also to what is not this machine"),
        click.Option(["--dry-run"], is_flag=True, help="send nothing; say what would be sent"),
        click.Option(["--json", "as_json"], is_flag=True, help="one JSON object"),
        click.Option(["--report"], metavar="FILE", help="write a text to attach to a bug report; - is stdout"),
    ],
    help="""Find what is wrong between this machine and the service.

    One question is asked at most, and what is sent is said before. The exit code is that of the first check that
    failed; a warning is none.""",
)

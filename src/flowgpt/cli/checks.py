"""The doctor's checks: of this machine, and of what one request came to. Nothing is sent or written here.

A request is judged by two tables: the error's code, or else its phase, names the check that failed. What lies before
it has passed; of what lies behind it nothing is claimed.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import math
import platform
import time
import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from .. import config
from ..errors import APITimeoutError, AuthenticationError, FlowGPTError
from ..store import sqlite
from ..transport import Call
from ..transport.health import LIMIT_SKEW_S
from ..transport.probe import Outcome
from ..version import __version__
from . import failures

LADDER = (
    *("proxy", "dns", "tcp", "tls", "service"),
    *("clock", "challenge", "signature", "protocol", "quota", "reply"),
)
"""What a request meets, in its order."""

FAILS: Mapping[str, str] = {
    **dict.fromkeys(("proxy_connect_error", "proxy_auth_error"), "proxy"),
    "dns_error": "dns",
    "tls_error": "tls",
    "clock_skew": "clock",
    "challenge": "challenge",
    **dict.fromkeys(("authentication_failed", "permission_denied"), "signature"),
    **dict.fromkeys(("bad_request", "not_found", "bad_http", "redirect_refused", "compression_refused"), "protocol"),
    **dict.fromkeys(("not_a_stream", "bad_event", "decode_error", "line_too_long", "response_too_large"), "protocol"),
    **dict.fromkeys(("rate_limited", "quota_exceeded"), "quota"),
}
"""The check that an error's code names. Any other code belongs to the check of the phase in which it came."""

OF_PHASE: Mapping[str | None, str] = {"pool": "tcp", "connect": "tcp", "head": "service", "body": "reply"}

_SIGNATURE = "check FLOWGPT_API_KEY, or api_key in the configuration; if it is right, the protocol may have changed"
HINTS: Mapping[str, str] = {
    "authentication_failed": _SIGNATURE,
    "permission_denied": _SIGNATURE,
    "bad_request": "the protocol may have changed: report it",
    "not_found": "check base_url in the configuration; if it is right, the protocol has changed: report it",
    "first_event_timeout": "try later, or give it more time with --timeout",
}
"""The next step, where the doctor knows more than the error."""

State = Literal["ok", "warn", "fail", "skipped"]


class Check(NamedTuple):
    """One finding. `hint`: the next step. `seconds`: how long it took. `exit_code`: the program's, if it failed."""

    name: str
    state: State
    words: str
    hint: str | None = None
    seconds: float | None = None
    exit_code: int = 0


def failed(name: str, error: FlowGPTError) -> Check:
    """The check that found this error."""
    hint = HINTS.get(error.code) or failures.hint(error)
    return Check(name, "fail", error.message, hint, exit_code=failures.exit_code(error))


# --- this machine -------------------------------------------------------------------------------------------------


def local() -> list[Check]:
    """The configuration, the version of Python and SQLite, and the age of the key."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            options = config.Options.resolve()
        except FlowGPTError as error:
            configuration, key = failed("configuration", error), Check("token", "skipped", "not reached")
        else:
            configuration, key = _configuration([str(warning.message) for warning in warned]), _token(options.api_key)
    python = Check("python", "ok", f"flowgpt {__version__}, Python {platform.python_version()}")
    return [configuration, python, _sqlite(), key]


def _configuration(warned: list[str]) -> Check:
    """Where values come from, never which: some are nobody's business."""
    path = config.home() / "config.toml"
    sources = {name: source for name, (_, source) in config.configuration().items()}
    words = ", ".join(
        f"{name} from {'the file' if source.startswith(str(path)) else source}" for name, source in sources.items()
    )
    found = f"{path if path.is_file() else f'no file {path}'}; {words or 'all is default'}"
    return Check("configuration", "warn", found, "; ".join(warned)) if warned else Check("configuration", "ok", found)


def _sqlite() -> Check:
    version, sound = sqlite()
    if sound:
        return Check("sqlite", "ok", f"SQLite {version}")
    return Check(
        "sqlite",
        "warn",
        f"SQLite {version} may damage a file in WAL mode that several processes write; flowgpt writes without WAL",
        "a Python with SQLite 3.51.3 or later makes stored responses faster",
    )


def _token(api_key: str | None) -> Check:
    """When the key expires, if it says so: a JWT does. It is read here, and neither verified nor shown."""
    if api_key is None:
        return Check("token", "skipped", "no api_key: the question is anonymous")
    expires_s = _expiry(api_key)
    if expires_s is None:
        return Check("token", "skipped", "cannot tell when this api_key expires: it does not say so as a JWT does")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires_s))
    if expires_s > time.time():
        return Check("token", "ok", f"the api_key expires on {when}")
    hint = "log in again for a new api_key, or check this machine's clock"
    code = failures.exit_code(AuthenticationError(""))
    return Check("token", "fail", f"the api_key expired on {when}", hint, exit_code=code)


def _expiry(api_key: str) -> float | None:
    """The `exp` of a JWT, Unix seconds (RFC 7519, 4.1.4); None when there is none."""
    try:
        _, claims, _ = api_key.split(".")
        expires_s = float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
        time.gmtime(expires_s)
    except (ValueError, LookupError, TypeError, OverflowError, OSError, RecursionError):
        return None
    return expires_s


# --- the request ----------------------------------------------------------------------------------------------------


def unsent(words: str) -> list[Check]:
    """The checks of a request that was not sent."""
    return [Check(name, "skipped", words) for name in LADDER]


def judge(call: Call, outcome: Outcome) -> list[Check]:
    """What one request tells, check by check."""
    failure = outcome.failure
    failing = _failing(call, failure) if failure else ""
    passed = _passed(failure, failing)
    absent, good = _absent(call), _good(call, outcome)
    checks: list[Check] = []
    for place, name in enumerate(LADDER):
        if failure and name == failing:
            checks.append(failed(name, failure)._replace(seconds=outcome.total_s))
        elif name == "clock":
            checks.append(_clock(outcome.offset_s))
        elif name in absent:
            checks.append(Check(name, "skipped", absent[name]))
        elif place < passed:
            checks.append(good[name])
        else:
            checks.append(Check(name, "skipped", "not reached"))
    return checks


def _failing(call: Call, failure: FlowGPTError) -> str:
    at = FAILS.get(failure.code) or OF_PHASE.get(failure.phase, "service")
    return "proxy" if at == "tcp" and call.options.proxy else at


def _passed(failure: FlowGPTError | None, failing: str) -> int:
    """How many of the ladder's checks are proved good."""
    if failure is None:
        return len(LADDER)
    if failure.phase == "body":
        return LADDER.index(failing)
    if failure.phase == "head":  # an answer, but a refusal can come before anything else was looked at
        return min(LADDER.index(failing), LADDER.index("service") + 1)
    return 0 if isinstance(failure, APITimeoutError) or failure.phase is None else LADDER.index(failing)


def _absent(call: Call) -> dict[str, str]:
    """Checks that this way to the service does not have, and why."""
    absent = {} if call.url.startswith("https:") else {"tls": "http has none"}
    if call.options.proxy:
        return absent | dict.fromkeys(("dns", "tcp"), "the proxy's affair")
    with contextlib.suppress(ValueError):
        absent["dns"] = f"{ipaddress.ip_address(urlsplit(call.url).hostname or '')} is no name"
    return absent | {"proxy": "there is none"}


def _good(call: Call, outcome: Outcome) -> dict[str, Check]:
    proxy = call.options.proxy
    words = {
        "proxy": f"{proxy.url if proxy else ''} lets the request through",
        "dns": f"{urlsplit(call.url).hostname} has an address",
        "tcp": "connected",
        "tls": "encrypted, and the certificate is right",
        "service": f"{call.origin} answers",
        "challenge": "no browser check",
        "signature": "accepted",
        "protocol": f"{outcome.events} events as documented",
        "quota": "not used up",
        "reply": "complete",
    }
    checks = {name: Check(name, "ok", text) for name, text in words.items()}
    if outcome.unknown_events:
        names = ", ".join(f"{name} ×{count}" for name, count in outcome.unknown_events.items())
        hint = "the service has grown: update flowgpt, or report it"
        checks["protocol"] = Check("protocol", "warn", f"events that nobody knows: {names}", hint)
    if not outcome.verified:
        checks["reply"] = Check("reply", "warn", "this connection cannot prove that the reply is complete")
    checks["service"] = checks["service"]._replace(seconds=outcome.head_s)
    checks["reply"] = checks["reply"]._replace(seconds=outcome.total_s)
    return checks


def _clock(offset_s: float) -> Check:
    """By the answer's Date, which has whole seconds."""
    if not offset_s:
        return Check("clock", "skipped", "no answer that says the time")
    off_s = abs(offset_s)
    if off_s <= LIMIT_SKEW_S:
        return Check("clock", "ok", f"within {math.ceil(off_s)} s of the service's")
    words = f"this machine's clock is {off_s / 60:.0f} min {'slow' if offset_s > 0 else 'fast'}"
    return Check("clock", "warn", words, "set the clock: a signature holds for a few minutes")

"""`flowgpt doctor`: each check in each state, by real servers; one request at most; and nothing secret shown."""

from __future__ import annotations

import email.utils
import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import Result

from flowgpt import config
from flowgpt.cli.checks import LADDER
from flowgpt.embedded import FAULTS, Server
from tests.cli.conftest import PYTHON, Invoke, Start, Write
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER
from tests.transport.test_failures import PAGE, closed_port, tls
from tests.upstream import CHUNKED, FIN, HUNG_UP, LAST, Gate, Peer, Script, Upstream, answer, chunk, event, head, reply

GOOD: Script = [reply("Hello ", "you")]


def at(seconds: float) -> str:
    """A Date header: the time of a clock that is so far ahead of ours."""
    return f"Date: {email.utils.formatdate(time.time() + seconds, usegmt=True)}"


def dated(status: int, ahead_s: float) -> Script:
    """A refusal with the time at which it is sent: a slow run makes no clock wrong."""

    async def send(peer: Peer) -> None:
        await peer.send(answer(status, b"", at(ahead_s)))

    return [send]


def checks(result: Result) -> dict[str, dict[str, Any]]:
    """The checks of `--json`, by name."""
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def states(result: Result) -> dict[str, str]:
    return {name: check["state"] for name, check in checks(result).items()}


def failing(result: Result) -> list[str]:
    return [name for name, state in states(result).items() if state == "fail"]


# --- all is well ----------------------------------------------------------------------------------------------------


def test_with_nothing_configured_the_embedded_server_is_asked_and_all_is_well(invoke: Invoke) -> None:
    result = invoke("doctor", "--json")

    found = checks(result)
    assert result.exit_code == 0, result.stdout
    assert json.loads(result.stdout)["endpoint"] == "embedded"
    assert [*found] == ["configuration", "python", "sqlite", "token", *LADDER]
    assert {name: check["state"] for name, check in found.items() if name != "sqlite"} == {
        "configuration": "ok",
        "python": "ok",
        **dict.fromkeys(("token", "proxy", "dns", "tls"), "skipped"),
        **dict.fromkeys(("tcp", "service", "clock", "challenge", "signature", "protocol", "quota", "reply"), "ok"),
    }
    assert found["reply"]["seconds"] >= found["service"]["seconds"] >= 0


def test_what_is_sent_is_said_before_and_is_sent_once(invoke: Invoke) -> None:
    """In method, address, header names and body: byte for byte what the service hears."""
    with Upstream(GOOD) as upstream:
        result = invoke("doctor", "--base-url", upstream.url, "-m", "gemini")
        (heard,) = upstream.requests

    lines = result.stderr.splitlines()
    assert lines[0] == f"flowgpt: one request is sent now: {heard.method} {upstream.url}{heard.target}"
    assert {name.lower() for name in lines[1].removeprefix("headers: ").split(", ")} == heard.headers.keys()
    assert lines[2] == f"body: {heard.body.decode()}"
    assert json.loads(heard.body)["model"] == "google-gemini"


def test_the_announcement_is_out_before_anything_is_answered(start: Start) -> None:
    """The service is silent until it has been read: it would be waited for in vain, were it to come after."""
    gate = Gate()
    with Upstream([gate, *GOOD]) as upstream:
        child = start("doctor", "--base-url", upstream.url)
        assert child.stderr is not None
        said = [child.stderr.readline() for _ in range(3)]
        gate.open()
        child.communicate(timeout=60)

    assert child.returncode == 0
    assert said[0].startswith(b"flowgpt: one request is sent now: POST ")
    assert said[2].startswith(b'body: {"model":')


def test_each_line_is_a_check_and_each_hint_is_under_its_own(server: Server, invoke: Invoke) -> None:
    server.fault("status:500")
    result = invoke("doctor")

    lines = result.stdout.splitlines()
    assert result.exit_code == 5
    place = next(place for place, line in enumerate(lines) if line.startswith("fail"))
    assert lines[place].startswith("fail    service: the service failed (status 500): scripted status 500")
    assert lines[place + 1] == "        hint: try later"
    assert all(line.split()[0] in ("ok", "warn", "fail", "skipped", "hint:") for line in lines)


# --- what can be wrong ----------------------------------------------------------------------------------------------

UPSTREAMS: dict[str, tuple[Script, str, int, list[str]]] = {
    # the script of the service, the check that fails, the exit code, and the checks that are good nevertheless
    "O10 another address": ([answer(404)], "protocol", 8, ["tcp", "service"]),
    "O10 a redirect": ([answer(308, b"", "Location: https://new.invalid/")], "protocol", 8, ["tcp", "service"]),
    "O10 other fields": ([answer(400, b'{"message": "no such field"}')], "protocol", 2, ["tcp", "service"]),
    "O10 a page": ([answer(200, PAGE)], "protocol", 8, ["service", "challenge", "signature"]),
    "O10 no HTTP": ([b"SSH-2.0-whatever\r\n", FIN], "protocol", 8, ["tcp"]),
    "O10 another event": ([answer(200, b'{"event":"text","data":7}\n')], "protocol", 8, ["signature"]),
    "G6 the key's scheme": (dated(401, 0), "signature", 3, ["tcp", "service", "clock"]),
    "403": ([answer(403, b'{"message": "not for you"}')], "signature", 3, ["tcp", "service"]),
    "a clock": (dated(401, -540), "clock", 3, ["tcp", "service"]),
    "a browser check": ([answer(403, PAGE, "cf-mitigated: challenge")], "challenge", 3, ["tcp", "service"]),
    "402": ([answer(402)], "quota", 4, ["tcp", "service"]),
    "429": ([answer(429, b"", "Retry-After: 3")], "quota", 4, ["tcp", "service"]),
    "no credit": ([reply("Insufficient credit")], "quota", 4, ["signature", "protocol"]),
    "500": (dated(500, 0), "service", 5, ["tcp", "clock"]),
    "closed": ([FIN], "service", 7, ["tcp"]),
    "cut": ([CHUNKED, chunk(event("a")), FIN], "reply", 7, ["protocol", "quota"]),
    "empty": ([CHUNKED, LAST], "reply", 8, ["protocol", "quota"]),
    "deaf": ([HUNG_UP], "service", 6, ["tcp"]),
}


@pytest.mark.parametrize("name", UPSTREAMS)
def test_what_is_wrong_is_named_by_the_check_that_fails_after_one_request(name: str, invoke: Invoke) -> None:
    script, fails, code, good = UPSTREAMS[name]
    limit = ["--timeout", "0.2"] if name == "deaf" else []
    with Upstream(script) as upstream:
        result = invoke("doctor", "--json", "--base-url", upstream.url, *limit)
        assert len(upstream.requests) == 1

    found = checks(result)
    assert (failing(result), result.exit_code) == ([fails], code), result.stdout
    assert {check: found[check]["state"] for check in good} == dict.fromkeys(good, "ok")
    behind = [check for check in LADDER[LADDER.index(fails) + 1 :] if check != "clock"]
    assert {found[check]["state"] for check in behind} <= {"skipped"}
    assert re.search(PYTHON, found[fails]["hint"] or "") is None


def test_g6_a_rejected_signature_may_mean_that_the_scheme_has_changed(invoke: Invoke) -> None:
    with Upstream([answer(401, b'{"message": "bad signature"}', at(1))]) as upstream:
        found = checks(invoke("doctor", "--json", "--base-url", upstream.url))["signature"]

    assert "rejects the key or the signature (status 401): bad signature" in found["words"]
    assert "the protocol may have changed" in found["hint"]


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_o10_every_fault_of_the_embedded_server_ends_in_a_verdict(fault: str, server: Server, invoke: Invoke) -> None:
    """And one check at most fails, whatever the answer is."""
    server.fault(fault)
    patience = ["--timeout", "0.3"] if fault in ("endless", "heartbeat", "stall", "stall_head") else []
    result = invoke("doctor", "--json", *patience)

    assert len(failing(result)) == (result.exit_code != 0)
    assert len(server.requests) == 1
    harmless = {"bom", "byte_at_a_time", "close_delimited", "crlf", "lone_surrogate", "no_blank_lines", "set_cookie"}
    assert (result.exit_code == 0) == (fault in harmless | {"no_last_newline", "unknown_events"}), result.stdout


def test_o10_events_that_nobody_knows_are_named_and_no_failure(server: Server, invoke: Invoke) -> None:
    server.fault("unknown_events")
    result = invoke("doctor", "--json")

    found = checks(result)["protocol"]
    assert (result.exit_code, found["state"]) == (0, "warn")
    assert found["words"] == "events that nobody knows: 'title' ×1, 'usage' ×1, 'end' ×1"
    assert found["hint"] is not None


def test_an_end_that_nothing_proves_is_a_warning(server: Server, invoke: Invoke) -> None:
    server.fault("close_delimited")
    result = invoke("doctor", "--json")

    assert (result.exit_code, states(result)["reply"]) == (0, "warn")


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (-540, "warn", "this machine's clock is 9 min fast"),
        (600, "warn", "this machine's clock is 10 min slow"),
        (30, "ok", "within 30 s of the service's"),
    ],
)
def test_the_clock_is_compared_with_a_good_answer_s_too(ahead_s: int, state: str, words: str, invoke: Invoke) -> None:
    with Upstream([head(200, "Transfer-Encoding: chunked", at(ahead_s)), chunk(event("a")), LAST]) as upstream:
        result = invoke("doctor", "--json", "--base-url", upstream.url)

    found = checks(result)["clock"]
    assert (result.exit_code, found["state"], found["words"]) == (0, state, words)


def test_an_answer_without_a_date_says_nothing_of_the_clock(invoke: Invoke) -> None:
    with Upstream(GOOD) as upstream:
        assert states(invoke("doctor", "--json", "--base-url", upstream.url))["clock"] == "skipped"


# --- the way --------------------------------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve_fails_dns(invoke: Invoke) -> None:
    result = invoke("doctor", "--json", "--yes", "--base-url", "https://nowhere.invalid")

    assert (failing(result), result.exit_code) == (["dns"], 5)
    assert "nowhere.invalid" in checks(result)["dns"]["words"]
    assert {states(result)[name] for name in LADDER if name != "dns"} == {"skipped"}


def test_a_refused_connection_fails_tcp(invoke: Invoke) -> None:
    result = invoke("doctor", "--json", "--base-url", f"http://localhost:{closed_port()}")

    assert (failing(result), result.exit_code) == (["tcp"], 5)
    assert states(result)["dns"] == "ok"


def test_a_certificate_of_nobody_fails_tls(invoke: Invoke) -> None:
    with Upstream([FIN], tls=tls(trustme.CA(), "localhost")) as upstream:
        result = invoke("doctor", "--json", "--base-url", f"https://localhost:{upstream.port}")
        assert upstream.requests == []

    found = states(result)
    assert (failing(result), result.exit_code) == (["tls"], 5)
    assert (found["dns"], found["tcp"], found["service"]) == ("ok", "ok", "skipped")


def test_when_no_connection_comes_about_in_time_nothing_is_claimed_of_its_parts(
    invoke: Invoke, configure: Write
) -> None:
    with Upstream(greeting=[HUNG_UP]) as upstream:
        result = invoke("doctor", "--json", "--timeout", "0.2", "--base-url", f"https://localhost:{upstream.port}")

    found = states(result)
    assert (failing(result), result.exit_code) == (["tcp"], 6)
    assert (found["dns"], found["tls"]) == ("skipped", "skipped")


@pytest.mark.parametrize(
    ("script", "words"),
    [([answer(407)], "rejects the credentials"), ([answer(502)], None), (None, "cannot reach the proxy")],
    ids=["407", "a plain 502 is the service's", "refused"],
)
def test_a_proxy_that_fails_is_the_proxy_s_check(script: Script | None, words: str | None, invoke: Invoke) -> None:
    with Upstream(script or [FIN]) as upstream:
        proxy = f"http://127.0.0.1:{upstream.port if script else closed_port()}"
        result = invoke("doctor", "--json", "--base-url", "http://127.0.0.1:1", "--proxy", proxy)
        assert len(upstream.requests) == (script is not None)

    found = checks(result)
    assert failing(result) == (["proxy"] if words else ["service"])
    assert result.exit_code == 5
    assert words is None or words in found["proxy"]["words"]
    assert (found["dns"]["state"], found["tcp"]["state"]) == ("skipped", "skipped")


def test_a_proxy_that_is_good_is_ok(invoke: Invoke) -> None:
    with Upstream(GOOD) as upstream:
        result = invoke("doctor", "--json", "--base-url", "http://127.0.0.1:1", "--proxy", upstream.url)

    assert (result.exit_code, states(result)["proxy"]) == (0, "ok")


# --- what is sent, and by whose leave -------------------------------------------------------------------------------


def test_dry_run_sends_nothing_and_says_what_would_be_sent(invoke: Invoke) -> None:
    with Upstream(GOOD) as upstream:
        result = invoke("doctor", "--json", "--dry-run", "--base-url", upstream.url)
        assert (upstream.requests, upstream.connections) == ([], 0)

    assert result.exit_code == 0
    assert {states(result)[name] for name in LADDER} == {"skipped"}
    assert f"this request would be sent: POST {upstream.url}/v3/chat-anonymous" in result.stderr


def test_what_is_not_this_machine_needs_yes_where_nobody_can_be_asked(invoke: Invoke) -> None:
    with Upstream(GOOD) as upstream:
        asked = ("doctor", "--base-url", "http://nowhere.invalid", "--proxy", upstream.url)
        refused = invoke(*asked)
        assert (upstream.connections, refused.exit_code, refused.stdout) == (0, 2, "")
        assert "http://nowhere.invalid is not this machine" in refused.stderr
        assert "--yes" in refused.stderr
        assert invoke(*asked, "--yes").exit_code == 0
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(("typed", "sent", "code"), [(b"y\n", 1, 0), (b"n\n", 0, 0), (b"\x04", 0, 130)])
def test_at_a_terminal_the_user_is_asked_after_hearing_what_would_be_sent(
    typed: bytes, sent: int, code: int, start: Start
) -> None:
    keyboard, terminal = os.openpty()
    with Upstream(GOOD) as upstream, os.fdopen(keyboard, "wb", buffering=0) as keys:
        child = start(
            "doctor",
            "--base-url",
            "http://nowhere.invalid",
            "--proxy",
            upstream.url,
            stdin=terminal,
            env={"TERM": "dumb"},
        )
        os.close(terminal)
        keys.write(typed)
        _, stderr = child.communicate(timeout=60)
        assert len(upstream.requests) == sent

    said = stderr.decode()
    assert child.returncode == code, said
    assert said.index("POST http://nowhere.invalid/v3/chat-anonymous") < said.index("Send it?")
    assert said.count("POST ") == 1


# --- this machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("base_url = \n", "cannot be read"),
        ("modell = 'x'\n", "did you mean 'model'?"),
        ("model = 'nope'\n", "model 'nope' is not in "),
        ("proxy = 'gopher://127.0.0.1'\n", "not 'gopher'"),
    ],
)
def test_a_wrong_configuration_fails_and_nothing_is_sent(
    toml: str, words: str, invoke: Invoke, configure: Write
) -> None:
    configure(toml)
    result = invoke("doctor", "--json")

    found = checks(result)
    assert (failing(result), result.exit_code) == (["configuration"], 2)
    assert words in found["configuration"]["words"]
    assert {found[name]["state"] for name in LADDER} == {"skipped"}
    assert "POST" not in result.stderr


def test_a_key_that_others_may_read_is_a_warning(invoke: Invoke, configure: Write) -> None:
    configure(f"api_key = '{API_KEY}'\nbase_url = 'embedded'\n")
    path = config.home() / "config.toml"
    path.chmod(0o644)
    result = invoke("doctor", "--json", "--dry-run")

    found = checks(result)["configuration"]
    assert (result.exit_code, found["state"]) == (0, "warn")
    assert "chmod 600" in found["hint"]
    path.chmod(0o600)
    assert states(invoke("doctor", "--json", "--dry-run"))["configuration"] == "ok"


@pytest.mark.parametrize(("version", "state"), [((3, 51, 2), "warn"), ((3, 51, 3), "ok"), ((3, 52, 0), "ok")])
def test_n8_a_sqlite_whose_wal_several_writers_may_damage_is_told(
    version: tuple[int, int, int], state: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    result = invoke("doctor", "--json", "--dry-run")

    assert (result.exit_code, states(result)["sqlite"]) == (0, state)


# --- a report to attach to a bug, and no secrets --------------------------------------------------------------------


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch, configure: Write) -> Callable[[str], None]:
    """A machine with a secret of each kind, whose proxy and service repeat all that they hear."""

    def everything(proxy: str) -> None:
        monkeypatch.setenv("HOME", str(config.home().parent))
        monkeypatch.setenv("FLOWGPT_API_KEY", API_KEY)
        monkeypatch.setenv("FLOWGPT_PROXY", proxy.replace("//", f"//{PROXY_USER}:{PROXY_PASSWORD}@"))
        configure("greeting = 'a greeting of mine'\nuser_id = 'user-of-mine'\nbase_url = 'http://127.0.0.1:1'\n")

    return everything


def test_k1_k2_the_report_has_versions_and_checks_and_no_secret(
    everything: Callable[[str], None], invoke: Invoke, tmp_path: Path
) -> None:
    """The key, the proxy's credentials, the device id, the prompt and the home; the canaries are looked for anyway."""
    said = f"{API_KEY} {PROXY_USER}:{PROXY_PASSWORD} {config.device_id()} {tmp_path}/x"
    with Upstream([answer(401, json.dumps({"message": said}).encode())]) as upstream:
        everything(upstream.url)
        result = invoke("doctor", "--report", str(tmp_path / "report.txt"))
        (heard,) = upstream.requests
        assert heard.headers["x-flow-device-id"] == config.device_id()
        assert heard.headers["proxy-authorization"].startswith("Basic ")

    report = (tmp_path / "report.txt").read_text("utf-8")
    assert result.exit_code == 3
    for shown in (report, result.stdout):
        for secret in (
            API_KEY,
            PROXY_USER,
            PROXY_PASSWORD,
            config.device_id(),
            str(tmp_path),
            "of mine",
            "user-of-mine",
        ):
            assert secret not in shown
    assert API_KEY not in result.stderr
    assert PROXY_PASSWORD not in result.stderr
    assert config.device_id() not in result.stderr
    assert "~/flowgpt-home/config.toml; greeting from the file" in report
    assert "api_key from FLOWGPT_API_KEY, proxy from FLOWGPT_PROXY" in report
    assert "fail    signature: the service rejects the key or the signature (status 401): *** ***:*** *** ~/x" in report
    assert report.startswith("flowgpt doctor, ")
    assert "\nplatform: " in report
    assert "aiohttp " in report


def test_a_report_that_cannot_be_written_costs_no_finding(server: Server, invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("doctor", "--json", "--report", str(tmp_path))

    assert (result.exit_code, states(result)["reply"]) == (1, "ok")
    assert "Is a directory" in result.stderr


def test_the_report_can_go_to_stdout_alone(server: Server, invoke: Invoke) -> None:
    result = invoke("doctor", "--report", "-")

    assert result.stdout.startswith("flowgpt doctor, ")
    assert result.stdout.count("ok      reply: ") == 1
    assert invoke("doctor", "--report", "-", "--json").exit_code == 2
    assert len(server.requests) == 1


def test_k1_no_secret_shows_in_a_process_with_its_streams(everything: Callable[[str], None], start: Start) -> None:
    """As the one above, in a process: the output of its own is looked through for the canaries."""
    with Upstream([answer(500, f"{API_KEY} {PROXY_PASSWORD}".encode())]) as upstream:
        everything(upstream.url)
        child = start("doctor")
        stdout, stderr = child.communicate(timeout=60)

    assert (child.returncode, stdout.count(b"***")) == (5, 2)
    assert b"POST http://127.0.0.1:1/v3/chat" in stderr


def test_a_narrow_terminal_gets_narrow_lines(start: Start) -> None:
    """Colours and other controls it gets none."""
    screen, terminal = os.openpty()
    child = start("doctor", "--dry-run", stdout=terminal, stderr=subprocess.DEVNULL, env={"COLUMNS": "40"})
    os.close(terminal)
    assert child.wait(60) == 0
    with os.fdopen(screen, "rb", buffering=0) as shown:
        text = shown.read(65536).decode()

    lines = text.splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= 40
    assert all(line.startswith((" " * 8, "ok ", "warn ", "skipped ")) for line in lines)
    assert "\x1b" not in text

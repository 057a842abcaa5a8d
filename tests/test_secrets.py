"""The canary: each way to show a secret fails a test. And the whole library, hiding secrets in all its errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import re
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import pytest

from flowgpt import FlowGpt, OpenAICompatible
from flowgpt.addresses import Secret, parse_origin, parse_proxy
from flowgpt.config import Options, Timeouts
from flowgpt.errors import FlowGPTError, InvalidRequestError
from tests.conftest import ANSWER, API_KEY, CANARIES, PROXY_PASSWORD, PROXY_USER, QUESTION, faces
from tests.upstream import FIN, HUNG_UP, RST, Upstream, answer

ASKED: Any = [{"role": "user", "content": "?"}]

LEAKS = {
    "a log record": 'logging.getLogger("flowgpt.transport").debug("key %s", KEY)',
    "a traceback in a log": "try:\n    leak(KEY)\nexcept FlowGPTError:\n    logging.getLogger().exception('oh')",
    "stdout": "print(KEY)",
    "stderr": "sys.stderr.write(KEY)",
    "stdout that the test reads": "print(KEY)\ncapsys.readouterr()",
    "a subprocess": "subprocess.run([sys.executable, '-c', f'print({KEY!r})'], capture_output=True, check=True)",
    "a message": "FlowGPTError('no ' + KEY)",
    "an attribute": "FlowGPTError('no', hint=KEY)",
    "a local of a frame": "with pytest.raises(FlowGPTError):\n    leak(KEY)",
    "a local behind a cause": "with pytest.raises(FlowGPTError):\n    leak_behind(KEY)",
    "a file of the home": "store(KEY)",
    "a question in a log": 'logging.getLogger("flowgpt").debug(QUESTION)',
    "an answer in a log": 'logging.getLogger("flowgpt.gateway.access").info("%s", ANSWER)',
    "the body of an answer": "answer(body=KEY)",
    "the head of an answer": "answer(header=KEY)",
    "a warning": "with pytest.warns(UserWarning):\n    warnings.warn(KEY)",
    "a pickle": "Pickled('no')",
}
INNOCENT = {
    "nothing": "pass",
    "a wrapped secret": "with pytest.raises(FlowGPTError):\n    leak(Secret(KEY))",
    "an error that hides it": "FlowGPTError('no ***')",
    "a configuration with a key": "config.home().mkdir()\n(config.home() / 'config.toml').write_text(KEY)",
    "a digest in the store": "store(hashlib.sha256(KEY.encode()).hexdigest())",
    "an answer on the wire": "answer(body=ANSWER)",
}
LEAKY_ROOM = """
import http.client, sqlite3
from flowgpt import config
from flowgpt.errors import FlowGPTError
from tests.conftest import API_KEY as KEY
from tests.gateway.conftest import Served

class Pickled(FlowGPTError):
    def __reduce__(self):
        return (type(self), (KEY,))

def store(text):
    config.home().mkdir()
    database = sqlite3.connect(config.home() / "flowgpt.db")
    with database:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", (text,))
    database.close()

def answer(body="", header="x"):
    async def app(scope, receive, send):
        headers = [(b"x", header.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})

    with Served(lambda: app) as served:
        served.request("GET", "/")

def leak(secret):
    raise FlowGPTError("no")

def leak_behind(secret):
    try:
        int(secret)
    except ValueError:
        raise FlowGPTError("no") from None
"""
HEADER = """
import hashlib, logging, subprocess, sys, warnings
import pytest
from flowgpt import config
from flowgpt.addresses import Secret
from flowgpt.errors import FlowGPTError
from leaky_room import Pickled, answer, leak, leak_behind, store
from tests.conftest import ANSWER, QUESTION, API_KEY as KEY
"""


@pytest.mark.slow
def test_the_canary_fails_each_test_that_shows_a_secret_and_no_other(tmp_path: Path) -> None:
    """A test run of its own, with our conftest and a room that leaks."""
    cases = LEAKS | INNOCENT
    body = "".join(
        f"def test_{number}({'capsys' if 'capsys' in code else ''}):\n{textwrap.indent(code, '    ')}\n"
        for number, code in enumerate(cases.values())
    )
    (tmp_path / "leaky_room.py").write_text(LEAKY_ROOM)
    (tmp_path / "test_leaks.py").write_text(HEADER + body)
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "--tb=no", "-rA"]
    done = subprocess.Popen(
        [*command, "--rootdir", str(tmp_path), str(tmp_path / "test_leaks.py")],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root}:{tmp_path}", "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.stdout is not None
    with done.stdout:
        told = done.stdout.read()  # not by `communicate`: our own canary would sing
    assert done.wait(60) == 1
    for number, name in enumerate(cases):
        failed = re.search(rf"^(FAILED|ERROR) test_leaks.py::test_{number}\b", told, re.MULTILINE) is not None
        assert failed is (name in LEAKS), f"{name}\n{told}"


# --- every error of the library, made with secrets in hand ------------------------------------------------------------

PROXY = f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:1"
BAD_CALLS: dict[str, dict[str, Any]] = {
    "an unusable key": {"api_key": API_KEY + "\n"},
    "a key of another type": {"api_key": [API_KEY]},
    "a bad port": {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@h:99999"},
    "a bad scheme": {"proxy": f"ftp://{PROXY_USER}:{PROXY_PASSWORD}@h"},
    "a bad host": {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@h_\u00e9"},
    "a path": {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@h/path"},
    "an unescaped slash": {"proxy": f"http://{PROXY_USER}:/{PROXY_PASSWORD}@h"},
    "an unescaped hash": {"proxy": f"http://{PROXY_USER}:#{PROXY_PASSWORD}@h"},
    "a control character": {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}%0d%0a@h"},
    "no scheme": {"proxy": f"{PROXY_USER}:{PROXY_PASSWORD}@h:1"},
    "credentials for an origin": {"base_url": f"http://{PROXY_USER}:{PROXY_PASSWORD}@h"},
    "another fault beside them": {"api_key": API_KEY, "proxy": PROXY, "timeout": -1},
    "an unknown model beside them": {"api_key": API_KEY, "proxy": PROXY, "model": "gpt-9"},
}


@pytest.mark.parametrize("form", ["generator", "joined", "sync", "stream"])
@pytest.mark.parametrize("name", BAD_CALLS)
def test_k1_k2_a_bad_call_shows_none_of_its_secrets(name: str, form: str) -> None:
    """Through each public form; the canary looks at the tracebacks with all their locals."""
    options = {"base_url": "http://127.0.0.1:1"} | BAD_CALLS[name]
    model = options.pop("model", "")

    async def ask() -> Any:
        if form == "generator":
            return [text async for text in FlowGpt.create_async_generator(model, ASKED, **options)]
        if form == "joined":
            return await FlowGpt.create_async(model, ASKED, **options)
        if form == "sync":
            return list(FlowGpt.create_completion(model, ASKED, **options))
        return FlowGpt.stream(model, ASKED, **options)

    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(ask())
    assert not any(canary in text for _, text in faces(caught.value) for canary in CANARIES)


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize("name", [name for name, options in BAD_CALLS.items() if len(options) == 1])
def test_k1_k2_a_bad_configuration_shows_none_of_its_secrets(
    name: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [(option, value)] = BAD_CALLS[name].items()
    if place == "environment":
        monkeypatch.setenv(f"FLOWGPT_{option.upper()}", str(value))
    else:
        monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path))
        text = "".join(f"\\u{ord(char):04x}" for char in str(value))
        (tmp_path / "config.toml").write_text(f'{option} = "{text}"\n')
        (tmp_path / "config.toml").chmod(0o600)
    if name == "a key of another type":
        assert Options.resolve().api_key == str(value)  # a string, here
        return
    with pytest.raises(InvalidRequestError, match=f"FLOWGPT_{option.upper()}|config.toml: {option}"):
        Options.resolve()


@pytest.mark.parametrize(
    "text", ['api_key = "{key}"\nnonsense', 'api_key = "{key}', 'api_key = "{key}"\nbase = 1', '"{key}" = 1\n\x00']
)
def test_k1_a_broken_configuration_file_shows_none_of_its_text(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(text.format(key=API_KEY))
    (tmp_path / "config.toml").chmod(0o600)
    with pytest.raises(InvalidRequestError, match=r"config\.toml"):
        Options.resolve()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_k2_a_bad_proxy_in_the_environment_shows_none_of_its_credentials(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"gopher://{PROXY_USER}:{PROXY_PASSWORD}@h")
    with pytest.raises(InvalidRequestError, match="ALL_PROXY"):
        Options.resolve(base_url="http://far.test")


SCRIPTS: dict[str, Any] = {
    "closed": [FIN],
    "reset": [RST],
    "refused": [answer(401, b"no")],
    "garbage": [b"hello\r\n\r\n", FIN],
    "redirected": [answer(302, b"", "Location: http://far.test/")],
    "no stream": [answer(200, b"<html>")],
    "cut": [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", FIN],
    "slow": [HUNG_UP],
    "a 407": [answer(407)],
}


@pytest.mark.parametrize("through", ["directly", "through a proxy"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_k1_a_failed_call_shows_none_of_its_secrets(name: str, through: str) -> None:
    """Not even in the locals of the frames that it comes through, which hold the headers."""
    with Upstream(SCRIPTS[name]) as upstream:
        options: dict[str, Any] = {"base_url": upstream.url, "api_key": API_KEY, "max_retries": 0}
        options["timeout"] = Timeouts(head_s=0.2)
        if through == "through a proxy":
            options["proxy"] = f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{upstream.port}"
        else:
            options["proxy"] = ""
        with pytest.raises(FlowGPTError) as caught:
            asyncio.run(FlowGpt.create_async("", ASKED, **options))
        assert upstream.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
    assert pickle.loads(pickle.dumps(caught.value)).code == caught.value.code
    assert "Traceback" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("who", ["FlowGPT", "another server"])
def test_k1_a_call_that_is_given_up_shows_no_key(who: str) -> None:
    """Its traceback goes through the HTTP client's frames, which hold the headers."""
    with Upstream([HUNG_UP]) as upstream:
        if who == "FlowGPT":
            reply = FlowGpt.stream("", ASKED, base_url=upstream.url, api_key=API_KEY)
        else:
            reply = OpenAICompatible(upstream.url, api_key=API_KEY, model="m").stream("", ASKED)

        async def give_up() -> None:
            reading = asyncio.create_task(reply.read())
            while not upstream.requests:
                await asyncio.sleep(0)
            reading.cancel()
            await reading

        with pytest.raises(asyncio.CancelledError) as caught:
            asyncio.run(give_up())
        assert upstream.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "Authorization" in shown
    assert API_KEY not in shown


def test_k1_a_fault_while_a_call_is_signed_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashlib.md5", None)
    with pytest.raises(TypeError, match="not callable") as caught:
        asyncio.run(FlowGpt.stream("", ASKED, base_url="http://127.0.0.1:1", api_key=API_KEY).read())
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "in signature" in shown
    assert API_KEY not in shown


@pytest.mark.parametrize("end", [b"", b"garbage\n"], ids=["well", "badly"])
def test_k3_what_is_asked_and_answered_is_in_no_log(end: bytes) -> None:
    """At DEBUG, to which the canary sets our loggers. The partial text is the error's, by its name."""
    told = json.dumps({"event": "text", "data": ANSWER}).encode() + b"\n" + end
    with Upstream([answer(200, told)]) as upstream:
        reply = FlowGpt.stream("", [{"role": "user", "content": QUESTION}], base_url=upstream.url, max_retries=0)
        with pytest.raises(FlowGPTError) if end else contextlib.nullcontext():
            asyncio.run(reply.read())
        assert QUESTION in upstream.requests[0].body.decode()


def test_a_secret_is_masked_in_a_repr_and_reads_as_itself_for_whoever_sends_it() -> None:
    secret = Secret(API_KEY)
    assert (repr(secret), f"{secret!r}", repr({"key": secret})) == ("'***'", "'***'", "{'key': '***'}")
    assert f"Bearer {secret}" == "Bearer " + API_KEY
    options = Options.resolve(api_key=API_KEY, proxy=PROXY)
    assert not any(canary in repr(options) + repr(options.proxy) for canary in CANARIES)
    assert options.proxy is not None
    assert options.proxy.url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"proxy": {"http": PROXY}},
        {"proxy": [PROXY]},
        {"proxy": PROXY.encode()},
        {"base_url": PROXY.encode()},
        {"base_url": f"http://127.0.0.1/{API_KEY}"},
        {"base_url": f"http://127.0.0.1/?key={API_KEY}"},
        {"api_key": [API_KEY]},
    ],
)
def test_k1_a_secret_of_the_wrong_kind_shows_in_no_traceback_either(wrong: dict[str, Any]) -> None:
    """The scanner around every test looks through the tracebacks, with their locals."""
    with pytest.raises(InvalidRequestError, match=f"^{next(iter(wrong))} "):
        FlowGpt.create_async_generator(messages=[{"role": "user", "content": "?"}], **wrong)


def test_the_parsers_alone_show_nothing_in_their_messages() -> None:
    for parse in (parse_origin, parse_proxy):
        with pytest.raises(InvalidRequestError) as caught:
            parse(Secret(f"http://{PROXY_USER}:{PROXY_PASSWORD}@h:x"))
        assert "port" in str(caught.value)

"""`flowgpt keys`: the whole output, and that a key that was made is one that is known."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

import pytest

from flowgpt import config
from flowgpt.gateway.auth import Auth, digest
from flowgpt.gateway.failures import Refusal
from flowgpt.store import Store
from tests.cli.conftest import Invoke, Start

WHEN = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store()) as opened:
        yield opened


def test_a_key_is_shown_once_alone_on_stdout_and_known_from_then_on_until_it_is_revoked(
    store: Store, invoke: Invoke
) -> None:
    """The store was open before: as in a gateway that runs."""
    who = Auth(store, insecure_no_auth=False)
    made = invoke("keys", "add", "alice")
    assert made.exit_code == 0
    assert re.fullmatch(r"fg-[\w-]{43}\n", made.stdout)
    key = made.stdout.strip()
    assert made.stderr == "flowgpt: this is the key alice; it is not stored, and not shown again\n"
    fields = {b"authorization": [f"Bearer {key}"]}
    assert who.owner(fields, b"") == "alice"

    revoked = invoke("keys", "revoke", "alice")
    assert (revoked.exit_code, revoked.stdout, revoked.stderr) == (0, "", "flowgpt: the key alice counts no more\n")
    with pytest.raises(Refusal):
        who.owner(fields, b"")


def test_n15_no_file_has_the_key(invoke: Invoke) -> None:
    key = invoke("keys", "add", "alice").stdout.strip()
    files = {file.name: file.read_bytes() for file in config.home().iterdir()}
    assert digest(key).encode() in files["flowgpt.db"]
    assert not any(key.encode() in data for data in files.values())


def test_the_list_has_names_and_dates_and_no_keys(invoke: Invoke) -> None:
    assert invoke("keys", "list").stdout == "name  made\n"
    assert json.loads(invoke("keys", "list", "--json").stdout) == {"keys": []}
    invoke("keys", "add", "the-long-name")
    invoke("keys", "add", "bob")
    listed = invoke("keys", "list")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert re.fullmatch(rf"name           made\nbob            {WHEN}\nthe-long-name  {WHEN}\n", listed.stdout)
    said = json.loads(invoke("keys", "list", "--json").stdout)
    assert [key["name"] for key in said["keys"]] == ["bob", "the-long-name"]
    assert all(key.keys() == {"name", "created"} and re.fullmatch(WHEN, key["created"]) for key in said["keys"])


def test_wrong_names_are_exit_code_2_and_one_line(start: Start) -> None:
    for words, line in [
        (("add", "alice"), None),
        (("add", "alice"), b"flowgpt: there is a key named 'alice' already\n"),
        (("add", "a b"), b"flowgpt: a key's name has 1 to 64 of the characters A-Z a-z 0-9 . _ -, not 'a b'\n"),
        (("revoke", "bob"), b"flowgpt: there is no key named 'bob'\nhint: `flowgpt keys list` names them\n"),
    ]:
        child = start("keys", *words)
        _, said = child.communicate(timeout=30)
        if line is not None:
            assert (child.returncode, said) == (2, line)


@pytest.mark.usefixtures("unwritable_home")
def test_n6_a_home_that_cannot_be_written_is_exit_code_9(start: Start) -> None:
    child = start("keys", "add", "alice")
    said, words = child.communicate(timeout=30)
    assert (child.returncode, said) == (9, b"")
    assert b"flowgpt.db cannot be made or opened: Not a directory\nhint: check" in words

"""Conversations as text, and back: nothing is lost, nothing breaks out, and no line that is read can do harm."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flowgpt.conversation import Conversation, Turn
from flowgpt.errors import InvalidRequestError
from flowgpt.formats import transcripts
from flowgpt.formats.transcripts import jsonl, lines, markdown, openai_messages, read

NOW = 1_800_000_000.0

times = st.floats(0, 253_402_300_799)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
parameters = st.dictionaries(st.text(), values, max_size=3)
turns_ = st.builds(
    Turn,
    role=st.sampled_from(["user", "assistant"]),
    text=st.text(),
    created_s=times,
    model=st.text(),
    system=st.text(),
    parameters=parameters,
    verdict=st.sampled_from(["", "complete", "unverified", "truncated", "interrupted"]),
    code=st.text(),
    first_text_s=st.none() | times,
    total_s=st.none() | times,
)
ids = st.from_regex(transcripts.ID, fullmatch=True)


@st.composite
def stored(draw: st.DrawFn) -> tuple[Conversation, list[Turn]]:
    turns = draw(st.lists(turns_, max_size=4))
    conversation = Conversation(
        id=draw(ids),
        title=draw(st.text()),
        created_s=draw(times),
        updated_s=draw(times),
        count=len(turns),
        branch_of=draw(st.just("") | ids),
        model=draw(st.text()),
        system=draw(st.text()),
        parameters=draw(parameters),
    )
    return conversation, turns


FRANCE = Conversation(
    id="ab2cd3efgh", title="What is the capital?", created_s=60.0, updated_s=86_400.0, count=4, system="Be brief."
)
TURNS = [
    Turn(role="user", text="What is the capital?", created_s=60.0),
    Turn(
        role="assistant", text="Paris.\n\n# Not a heading of ours", created_s=60.0, model="gpt_4",
        system="Be brief.", verdict="complete",
    ),
    Turn(role="user", text="And of Italy?", created_s=86_390.0),
    Turn(role="assistant", text="Ro", created_s=86_390.0, model="gpt_4", verdict="truncated", code="idle_timeout"),
]  # fmt: skip


# --- Markdown


def test_markdown_has_a_heading_for_each_turn_and_says_what_became_of_it() -> None:
    assert markdown(FRANCE, TURNS) == (
        "# What is the capital?\n\n"
        "ab2cd3efgh · 1970-01-02 00:00 UTC · 4 turns\n\n"
        "## System prompt\n\n> Be brief.\n\n"
        "## You\n\n> What is the capital?\n\n"
        "## gpt\\_4\n\n> Paris.\n>\n> # Not a heading of ours\n\n"
        "## You\n\n> And of Italy?\n\n"
        "## gpt\\_4\n\nWithout a system prompt.\n\n> Ro\n\n*The answer was cut off.* (idle\\_timeout)\n"
    )


def test_markdown_names_a_branch_a_draft_and_another_system_prompt() -> None:
    branch = Conversation(id="a", title="", created_s=0.0, updated_s=0.0, branch_of="b")
    draft = Turn(role="assistant", text="", created_s=0.0, system="Sing.", verdict="interrupted")
    greeting = Turn(role="assistant", text="Hello.", created_s=0.0)

    assert markdown(branch, [greeting, draft]) == (
        "# Untitled\n\na · 1970-01-01 00:00 UTC · 2 turns\n\nA branch of b.\n\n## Answer\n\n> Hello.\n\n"
        "## Answer\n\nWith another system prompt:\n\n> Sing.\n\n*The answer was stopped before its end.*\n"
    )


@given(stored())
def test_e14_no_text_in_markdown_passes_for_ours(there: tuple[Conversation, list[Turn]]) -> None:
    """Whatever it says: as CommonMark's parser sees it, the headings are the title's, the prompt's and the turns'."""
    conversation, turns = there
    tokens = MarkdownIt("commonmark").parse(markdown(conversation, turns))

    assert len([token for token in tokens if token.type == "heading_open" and token.level == 0]) == (
        1 + bool(conversation.system) + len(turns)
    )
    kinds = {token.type for token in tokens if token.level == 0}
    assert kinds <= {"heading_open", "heading_close", "inline", "paragraph_open", "paragraph_close"} | {
        "blockquote_open",
        "blockquote_close",
    }
    spoken = [
        child for token in tokens if token.level == 1 and token.type == "inline" for child in token.children or []
    ]
    assert {child.type for child in spoken} <= {"text", "text_special", "em_open", "em_close"}


HOSTILE = (
    "# You\n\n",
    "```\n",
    "<!--\n",
    "<div>\n",
    "\r## Me\r",
    "\n---\n",
    "[a](b)",
    "*",
    "> ",
    "\n\n\n",
    "x",
    "    ",
    "-",
)


@given(st.lists(st.sampled_from(HOSTILE)).map("".join), st.lists(st.sampled_from(HOSTILE)).map("".join))
def test_e14_markup_in_texts_and_names_stays_within_its_quote(text: str, name: str) -> None:
    conversation = Conversation(id="a", title=name, created_s=0.0, updated_s=0.0)
    test_e14_no_text_in_markdown_passes_for_ours.hypothesis.inner_test(  # type: ignore[attr-defined]
        (conversation, [Turn(role="assistant", text=text, created_s=0.0, model=name, verdict="truncated", code=name)])
    )


@given(st.text())
def test_a_text_can_be_had_back_from_its_quote(text: str) -> None:
    turn = Turn(role="user", text=text, created_s=0.0)
    whole = markdown(Conversation(id="a", title="", created_s=0.0, updated_s=0.0), [turn])

    quoted = [line[2:] for line in whole.split("\n") if line.startswith(">")]
    assert "\n".join(quoted) == text.replace("\r\n", "\n").replace("\r", "\n")


# --- our lines


@given(stored())
def test_what_is_written_as_a_line_is_read_as_it_was(there: tuple[Conversation, list[Turn]]) -> None:
    line = jsonl(*there)

    assert line.count("\n") == 1
    assert read(line.encode(), NOW) == there


def test_a_line_has_its_version_and_no_defaults() -> None:
    assert jsonl(FRANCE, TURNS[:1]) == (
        '{"flowgpt":1,"conversation":{"id":"ab2cd3efgh","title":"What is the capital?","created_s":60.0,'
        '"updated_s":86400.0,"count":1,"system":"Be brief."},'
        '"turns":[{"role":"user","text":"What is the capital?","created_s":60.0}]}\n'
    )


def test_e14_what_commands_a_terminal_is_escaped_in_a_line() -> None:
    said = "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
    turn = Turn(role="user", text=said + "é€", created_s=0.0)

    line = jsonl(FRANCE, [turn])
    assert not set(said) & set(line.rstrip("\n"))
    assert "é€" in line
    assert read(line.encode(), NOW)[1] == [turn]
    assert not set(said) & set(openai_messages(FRANCE, [turn]).rstrip("\n"))


# --- OpenAI's lines


def test_openai_messages_are_what_a_model_would_be_sent() -> None:
    unanswered = [Turn(role="user", text="?", created_s=0.0), Turn(role="assistant", text="", created_s=0.0)]

    assert json.loads(openai_messages(FRANCE, [*TURNS[:2], *unanswered])) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the capital?"},
            {"role": "assistant", "content": "Paris.\n\n# Not a heading of ours"},
        ]
    }


MESSAGES = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "?"}], "name": "bob"},
    {"role": "assistant", "content": "Ada.", "refusal": None, "weight": 1, "tool_calls": None},
]


@pytest.mark.parametrize("value", [{"messages": MESSAGES, "model": "m"}, {"model": "m", "messages": MESSAGES}])
def test_openais_messages_are_read_with_a_time_and_an_id_of_their_own(value: Any) -> None:
    conversation, turns = read(json.dumps(value).encode(), NOW)

    assert turns == [
        Turn(role="user", text="Who ?", created_s=NOW),
        Turn(role="assistant", text="Ada.", created_s=NOW, model="m", system="Be brief.", verdict="complete"),
    ]
    assert (conversation.title, conversation.count, conversation.model, conversation.system) == (
        "Who ?", 2, "m", "Be brief.",
    )  # fmt: skip
    assert (conversation.created_s, conversation.updated_s) == (NOW, NOW)
    assert read(json.dumps(value, indent=1).encode(), NOW + 1)[0].id == conversation.id, "the same is known again"
    bare = read(json.dumps(MESSAGES).encode(), NOW)
    assert bare[0].id != conversation.id, "it names no model"
    assert [turn.text for turn in bare[1]] == ["Who ?", "Ada."]


def test_a_system_message_further_down_adds_to_the_prompt_and_a_greeting_was_not_asked_for() -> None:
    said = [("assistant", "Hi."), ("system", "Be brief."), ("user", "?"), ("system", "In verse."), ("assistant", "!")]
    conversation, turns = read(json.dumps([{"role": role, "content": text} for role, text in said]).encode(), NOW)

    assert [(turn.text, turn.system, turn.verdict) for turn in turns] == [
        ("Hi.", "", ""),
        ("?", "", ""),
        ("!", "Be brief.\n\nIn verse.", "complete"),
    ]
    assert conversation.system == "Be brief.\n\nIn verse."


@given(stored())
def test_what_is_written_for_openai_says_the_same_when_it_is_read(there: tuple[Conversation, list[Turn]]) -> None:
    conversation, turns = there
    written = openai_messages(conversation, turns)
    if any(message["role"] != "system" for message in json.loads(written)["messages"]):
        again = read(written.encode(), NOW)
        assert openai_messages(*again) == written


# --- lines that are refused

ONE = '{"role":"user","content":"?"}'
HEAD = '"id":"a","title":"","created_s":0,"updated_s":0'


DEEP = "[" * 100_000
BROKEN = b'[{"role":"user","content":"\xff"}]'


def ours(head: str = HEAD, turns: str = "") -> str:
    return f'{{"flowgpt":1,"conversation":{{{head}}},"turns":[{turns}]}}'


REFUSED = [
    ("{", "no JSON"),
    ("nonsense", "no JSON"),
    (BROKEN, "no JSON in UTF-8"),
    (r'[{"role":"user","content":"\ud800"}]', "no JSON"),
    (DEEP, "conversation"),
    (ours(HEAD + ',"parameters":{"a":' + DEEP), "no JSON"),
    ("3", "Expected `object`"),
    ("null", "Expected `object`"),
    ("[]", "nobody says anything"),
    ('{"messages":[]}', "nobody says anything"),
    ('{"messages":[{"role":"system","content":"x"}]}', "nobody says anything"),
    ("{}", "missing required field `messages`"),
    ('{"messages":[],"tools":[]}', "unknown field `tools`"),
    ('[{"role":"tool","content":"?"}]', "Invalid enum value 'tool' - at `$[0].role`"),
    ('[{"role":"user","content":null}]', "content"),
    ('[{"role":"user"}]', "missing required field `content`"),
    ('[{"role":"user","content":"?","tool_calls":[]}]', "$[0].tool_calls"),
    ('[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]', "image_url"),
    (ONE.join("[]").replace('"role"', f'"{"x" * 100_000}"'), "unknown field `xxx"),
    ('{"flowgpt":2,"anything":1}', "a newer flowgpt wrote this"),
    ('{"flowgpt":0}', "missing required field `conversation`"),
    ('{"flowgpt":"1"}', "Expected `int | null`"),
    ('{"flowgpt":1}', "missing required field `conversation`"),
    (ours(HEAD + ',"owner":1'), "unknown field `owner`"),
    (ours(turns='{"role":"system","text":"","created_s":0}'), "'system'"),
    (ours(turns='{"role":"user","text":""}'), "created_s"),
    (ours(turns='{"role":"user","text":"","created_s":0,"verdict":"true"}'), "'true'"),
    (ours(turns='{"role":"user","text":"","created_s":1e300}'), "a time is"),
    (ours(HEAD.replace(":0", ":-1")), "a time is before 1970"),
    (ours(HEAD.replace(":0", ":1e999")), "conversation"),
    (ours(HEAD.replace('"a"', '"../a"')), "an id has 1 to 64"),
    (ours(HEAD.replace('"a"', '"a\\n"')), "an id has 1 to 64"),
    (ours(HEAD + ',"branch_of":"a/b"'), "an id has 1 to 64"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_m6_a_line_that_is_no_conversation_is_refused_with_what_is_wrong_with_it(line: str | bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read(line.encode() if isinstance(line, str) else line, NOW)

    assert words in refused.value.message
    assert len(refused.value.message) < 300


@given(st.binary() | st.builds(lambda value: json.dumps(value).encode(), values))
def test_m6_whatever_is_read_is_a_conversation_or_an_invalid_request(line: bytes) -> None:
    try:
        conversation, turns = read(line, NOW)
    except InvalidRequestError:
        return
    assert conversation.count == len(turns)


@given(stored(), st.data())
def test_m6_a_line_that_was_cut_is_refused(there: tuple[Conversation, list[Turn]], data: st.DataObject) -> None:
    line = jsonl(*there).encode().rstrip()
    cut = data.draw(st.integers(0, len(line) - 1))

    with pytest.raises(InvalidRequestError):
        read(line[:cut], NOW)


# --- splitting into lines


def test_a_stream_is_the_same_lines_wherever_it_is_cut() -> None:
    stream = '\ufeff[1]\r\n\n  \n{"a":"é"}\n[3]'.encode()
    whole = [(1, b"\xef\xbb\xbf[1]\r"), (4, '{"a":"é"}'.encode()), (5, b"[3]")]

    for cut in range(len(stream) + 1):
        assert list(lines([stream[:cut], stream[cut:]])) == whole
    assert list(lines(bytes([byte]) for byte in stream)) == whole
    assert list(lines([])) == []


def test_a_byte_order_mark_and_windows_ends_of_lines_are_no_part_of_a_line() -> None:
    assert read(b"\xef\xbb\xbf[" + ONE.encode() + b"]\r", NOW)[1][0].text == "?"


def test_m6_a_line_that_is_too_long_is_cut_and_refused_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "LIMIT_BYTES", 50)
    good = f"[{ONE}]".encode()
    long = b"[" + b" " * 60 + good[1:]

    for size in range(1, 70):
        stream = long + b"\n" + good + b"\n"
        found = list(lines(stream[start : start + size] for start in range(0, len(stream), size)))
        assert [(number, len(line)) for number, line in found] == [(1, 51), (2, len(good))]
        with pytest.raises(InvalidRequestError, match="50 bytes at most"):
            read(found[0][1], NOW)
        assert read(found[1][1], NOW)[1][0].text == "?"


def test_many_lines_take_the_memory_of_one() -> None:
    chunk = (f"[{ONE}]".encode() + b" " * 1000 + b"\n") * 60

    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield chunk

    tracemalloc.start()
    count = sum(1 for _ in lines(chunks()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 12_000
    assert peak < 1_000_000

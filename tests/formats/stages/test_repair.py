"""formats/stages/repair.py: what a model is told whose answer has the wrong form, and the failure after that."""

from __future__ import annotations

from flowgpt.errors import ProtocolError
from flowgpt.formats.stages import repair


def test_the_model_sees_its_answer_the_fault_and_the_way() -> None:
    assert repair.again("I think 3", "it is not JSON.", "Write JSON.").messages == (
        {"role": "assistant", "content": "I think 3"},
        {
            "role": "user",
            "content": "That answer cannot be used: it is not JSON. Write JSON. "
            "Answer again, from the beginning, without an apology.",
        },
    )


def test_a_long_answer_is_shown_in_part() -> None:
    shown = repair.again("x" * (repair.LIMIT_SAID + 1), "", "").messages[0]["content"]

    assert shown == "x" * repair.LIMIT_SAID + " …"


def test_the_failure_has_the_whole_answer_and_is_not_retried() -> None:
    error = repair.failure("x" * 30_000, "it is not JSON.").error

    assert isinstance(error, ProtocolError)
    assert (error.code, error.partial_text, error.retriable) == ("invalid_output", "x" * 30_000, False)
    assert error.message == "the model's answer has not the form that was asked for: it is not JSON."

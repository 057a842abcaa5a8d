"""An answer of the wrong form: what the model is told, once, and the failure when that did not help."""

from __future__ import annotations

from ...errors import ProtocolError
from ..pieces import Again, Failure

LIMIT_SAID = 20_000
"""How many characters of its own answer the model is shown again."""


def again(said: str, fault: str, way: str) -> Again:
    """Ask once more. `said`: the answer. `fault`, `way`: what was wrong, and how to do it right, as sentences."""
    shown = said if len(said) <= LIMIT_SAID else said[:LIMIT_SAID] + " …"
    words = f"That answer cannot be used: {fault} {way} Answer again, from the beginning, without an apology."
    return Again(({"role": "assistant", "content": shown}, {"role": "user", "content": words}))


def failure(said: str, fault: str) -> Failure:
    """Give up. The error's `partial_text` is the whole answer."""
    words = f"the model's answer has not the form that was asked for: {fault}"
    hint = "ask again, in simpler words or of another model; what it said is in partial_text"
    return Failure(ProtocolError(words, code="invalid_output", hint=hint, partial_text=said))

"""A conversation that goes on: what was said, what is asked next, and the record of it.

Every command that talks is a loop over `Dialogue.ask`. Nothing here knows a terminal's screen.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .. import config
from ..client import Client
from ..conversation import Conversation, Turn, Verdict, messages
from ..errors import FlowGPTError, InvalidRequestError, StoreError
from ..reply import Reply
from ..store import Store
from .recording import Recording

DAY_S = 24 * 60 * 60.0

RESUMED = ("model", "temperature", "nsfw", "prompt_id", "greeting", "user_name", "document_ids", "generate_image")
"""Options that a conversation goes on with. None says where to: a conversation may have come from a stranger's file."""


def resumed(conversation: Conversation) -> dict[str, Any]:
    """Those of RESUMED that its last answer was asked with, where they are still right."""
    found = {}
    for name in RESUMED:
        with contextlib.suppress(KeyError, InvalidRequestError):
            found[name] = config.OPTIONS[name].metadata["check"](conversation.parameters[name])
    return found


@contextlib.contextmanager
def saved(tell: Callable[[str], None], *, wanted: bool = True) -> Iterator[Store | None]:
    """The store, less what is older than the configuration wants; None where nothing is saved, or it cannot be.

    `tell`: is given one line of why it cannot. Raises: InvalidRequestError for a wrong configuration.
    """
    history = config.history()
    store = None
    if wanted and history.save:
        try:
            store = Store()
            if history.retention_days is not None:
                store.conversations.delete_older(time.time() - history.retention_days * DAY_S)
        except StoreError as error:
            what = "this conversation is not being saved" if store is None else "old conversations are not deleted"
            tell(f"flowgpt: {what}: {error.message}")
    try:
        yield store
    finally:
        if store is not None:
            store.close()


class Dialogue:
    """One conversation, asked through `client` and kept in `store` (None: not kept), by one thread.

    `turns`: what was said. `model`, `system`, `temperature`, `options` (of a call): what the next question is asked
    with, and may be set at any time between two questions; "" and None are as configured. `default_model`: who answers
    when `model` is "". `reply`: the last one. `tell`: is given one line when the record fails, and when it works again.
    """

    def __init__(
        self,
        client: Client,
        store: Store | None,
        *,
        tell: Callable[[str], None],
        default_model: str = "",
        model: str = "",
        system: str = "",
        temperature: float | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.turns: list[Turn] = []
        self.model, self.system, self.temperature = model, system, temperature
        self.options = options or {}
        self.default_model = default_model
        self.reply: Reply | None = None
        self._client = client
        self._recording = Recording(store, tell) if store else None

    @property
    def id(self) -> str | None:
        """Its id in the store, when all that was said is written; None: it is not there."""
        return self._recording.settle() if self._recording else None

    @property
    def kept(self) -> bool:
        """Whether what is said is being kept, as far as is known now; never waits."""
        return self._recording is not None and not self._recording.trouble

    def resume(self, conversation: Conversation, turns: Sequence[Turn]) -> None:
        """Go on with one of the store: with its model, system prompt and temperature, where none are set."""
        kept = resumed(conversation)
        self.turns = [*turns]
        asked, temperature = kept.pop("model", ""), kept.pop("temperature", None)
        self.model = self.model or asked or conversation.model
        self.system = self.system or conversation.system
        self.temperature = temperature if self.temperature is None else self.temperature
        self.options = kept | self.options
        if self._recording:
            self._recording.resume(conversation.id, turns)

    def greet(self, text: str) -> None:
        """Begin with words that no model was asked for; they are kept with the first question."""
        self.turns.append(Turn(role="assistant", text=text, created_s=time.time()))

    def ask(self, question: str) -> Generator[str]:
        """The texts of the answer, as they come. Question and answer are then in `turns`, however it ended.

        To be closed when it is left early; that, and Ctrl-C, leave the answer `interrupted`. The last question again,
        when no word of an answer had come, takes the place of the first. Raises: FlowGPTError.
        """
        self.reply = None
        if self._unanswered() != question:
            asked = Turn(role="user", text=question, created_s=time.time())
            draft = Turn(role="assistant", text="", created_s=asked.created_s, verdict="interrupted", **self._how())
            self.turns += [asked, draft]
            if self._recording:
                self._recording.begin(self.turns)
        sent = messages(self.turns[:-1], self.system)
        verdict: Verdict = "interrupted"
        said: list[str] = []
        code = ""
        try:
            with self._client.chat.completions.create(
                model=self.model, messages=sent, stream=True, temperature=self.temperature, **self.options
            ) as stream:
                self.reply = stream.reply
                for chunk in stream:
                    if text := chunk.choices[0].delta.content or "":
                        said.append(text)
                        if self._recording:
                            self._recording.add(text)
                        yield text
            verdict = stream.reply.verdict or "interrupted"
        except FlowGPTError as error:
            verdict, code = "truncated", error.code
            raise
        finally:
            self._end("".join(said), verdict, code)

    def _end(self, text: str, verdict: Verdict, code: str) -> None:
        reply = self.reply
        answer = replace(
            self.turns[-1],
            text=text,
            **self._how(),
            verdict=verdict,
            code=code,
            first_text_s=reply.timings.first_text_s if reply else None,
            total_s=reply.timings.total_s if reply else None,
        )
        self.turns[-1] = answer
        if self._recording:
            self._recording.end(answer)

    def _how(self) -> dict[str, Any]:
        """What an answer tells of how it was asked for."""
        parameters, model = dict(self.options), self.reply.model if self.reply else self.model or self.default_model
        if self.temperature is not None:
            parameters["temperature"] = self.temperature
        if self.model not in ("", model):
            parameters["model"] = self.model  # the one that was asked for: an alias, a character
        return {"model": model, "system": self.system, "parameters": parameters}

    def _unanswered(self) -> str | None:
        """The last question, when no word of an answer came."""
        last = self.turns[-2:]
        return last[0].text if len(last) == 2 and last[1].role == "assistant" and not last[1].text else None

    def undo(self) -> Turn | None:
        """Take back the last question with what followed it; gives the question, None when there is none.

        The store keeps it: what is said next, or closing, begins a branch.
        """
        places = [place for place, turn in enumerate(self.turns) if turn.role == "user"]
        if not places:
            return None
        question = self.turns[places[-1]]
        del self.turns[places[-1] :]
        if self._recording:
            self._recording.cut(len(self.turns))
        return question

    def fork(self) -> str | None:
        """Go on in a branch of the conversation, which stays as it is; its id, None where it is not kept."""
        before = self.id
        if self._recording is None or before is None:
            return None
        self._recording.branch()
        return after if (after := self.id) != before else None

    def close(self) -> None:
        """Wait until all that was said is written. What was taken back at the end is not in what `id` names then."""
        if self._recording:
            self._recording.close()

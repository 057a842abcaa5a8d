"""FlowGPT: a message list becomes one signed request, and its answer a reply. No HTTP, no parsing in here.

A character's name as model makes two of it: characters.py has the first.

Unofficial, by docs/protocol.md; see its section "Status and terms" before pointing this at the public service.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from .. import transport
from ..addresses import Secret
from ..config import EMBEDDED, TEMPERATURE, Options, conceal, device_id
from ..errors import InvalidRequestError
from ..limits.breaker import Health
from ..messages import Messages
from ..protocol import catalog, signing
from ..protocol.characters import Character, in_character, named
from ..protocol.events import Decoder
from ..protocol.request import ChatRequest, Prompt, encode, prompt_from_messages
from ..reply import Reply
from ..transport.health import endpoint
from . import characters
from .base import AsyncGeneratorProvider, ProviderModelMixin


class FlowGpt(AsyncGeneratorProvider, ProviderModelMixin):
    """The FlowGPT chat API as an async generator of texts.

    `working`: False while the configured endpoint's circuit is open, in this process; `health` says since when and why.
    It is no claim about the public service.
    """

    url: ClassVar[str] = "https://flowgpt.com/chat"
    supports_message_history: ClassVar[bool] = True
    supports_system_message: ClassVar[bool] = True
    supports_characters: ClassVar[bool] = True
    default_model: ClassVar[str] = catalog.DEFAULT_MODEL
    models: ClassVar[list[str]] = list(catalog.MODELS)
    model_aliases: ClassVar[dict[str, str]] = dict(catalog.ALIASES)
    models_as_of: ClassVar[str] = catalog.AS_OF

    @classmethod
    def get_model(cls, model: str = "", *, allow_unknown_model: bool = False, extra_models: Sequence[str] = ()) -> str:
        """The id to send: "" gives the default, an alias its target; a character's name stays what it is.

        Raises: ModelNotFoundError, naming the nearest ids and how to use an id that is not in the list.
        """
        if characters.is_character(model):
            return characters.checked(model)
        return super().get_model(model, allow_unknown_model=allow_unknown_model, extra_models=extra_models)

    @classmethod
    def stream(
        cls,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Reply:
        """The reply in its full form; nothing is sent before it is read.

        `model`: an id or alias, `character:ID`, "" for the configured or default one. `proxy`: None as configured, ""
        none. `temperature`: 0 to 2. `options`: `flowgpt.config.Options`.
        Raises: InvalidRequestError, before anything is sent.
        """
        proxy = conceal(options, proxy)
        call, chosen, cast = cls._begin(model, messages, {"proxy": proxy, "temperature": temperature} | options)
        source = transport.Stream(call) if cast is None else characters.Answering(call, chosen, cast)
        return Reply(source, model=chosen)

    @classmethod
    def call(
        cls,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> tuple[transport.Call, str]:
        """The first request that `stream` sends, and the model that it asks. Arguments, errors: those of `stream`.

        For a character that is not of this machine, it is the request for that, and the model is its name.
        """
        proxy = conceal(options, proxy)
        call, chosen, _ = cls._begin(model, messages, {"proxy": proxy, "temperature": temperature} | options)
        return call, chosen

    @classmethod
    def _begin(
        cls, model: str, messages: Messages, options: dict[str, Any]
    ) -> tuple[transport.Call, str, characters.Cast | None]:
        """The first request, whom it asks, and how the chat is asked when that was the request for a character."""
        asked = Options.resolve(**{"model": model or None} | options)
        if asked.base_url == EMBEDDED:
            raise InvalidRequestError(
                "base_url 'embedded' is for the terminal",
                code="bad_base_url",
                hint="in Python: `with flowgpt.embedded.Server() as server:` and base_url=server.base_url",
            )
        prompt = prompt_from_messages(messages, greeting=asked.greeting)
        if not characters.is_character(asked.model):
            how: Any = {"allow_unknown_model": asked.allow_unknown_model, "extra_models": asked.extra_models}
            chosen = cls.get_model(asked.model, **how)
            return _chat(asked, prompt, chosen), chosen, None
        is_default = options["temperature"] is None or options["temperature"] is TEMPERATURE  # not the caller's own

        def cast(character: Character) -> tuple[transport.Call, str]:
            theirs = replace(asked, prompt_id=asked.prompt_id or character.id)
            if is_default and character.temperature is not None:
                theirs = replace(theirs, temperature=character.temperature)
            chosen = character.model or cls.default_model
            return _chat(theirs, in_character(prompt, named(character, asked.user_name)), chosen), chosen

        if (character := characters.local(asked.model)) is not None:
            return *cast(character), None
        return characters.request(asked.model, asked), asked.model, cast

    @classmethod
    def health(cls, **options: Any) -> Health:
        """What this process knows of the endpoint that a call with these options would ask. Nothing is sent.

        Raises: InvalidRequestError.
        """
        return endpoint(Options.resolve(**options)).health()


def _chat(asked: Options, prompt: Prompt, model: str) -> transport.Call:
    """The request of a question. Raises: InvalidRequestError for one that is no JSON, or too large."""
    request = ChatRequest(
        model=model,
        prompt=prompt,
        temperature=asked.temperature,
        nsfw=asked.nsfw,
        prompt_id=asked.prompt_id or None,
        document_ids=asked.document_ids,
        generate_image=asked.generate_image,
        signed_in=asked.api_key is not None,
        user_id=asked.user_id,
        conversation_id=asked.conversation_id,
        extra=asked.extra_body,
    )

    def headers(now_s: float) -> dict[str, str]:
        bearer = Secret(signing.authorization(asked.api_key))
        return signing.headers(
            authorization=bearer, timestamp_s=int(now_s), nonce=os.urandom(16).hex(), device_id=device_id()
        )

    return transport.Call(asked.base_url + request.path, encode(request), headers, Decoder, asked)

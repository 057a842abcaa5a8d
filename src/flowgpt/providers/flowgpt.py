"""FlowGPT: a message list becomes one signed request, and its answer a reply. No HTTP, no parsing in here.

Unofficial, by docs/protocol.md; see its section "Status and terms" before pointing this at the public service.
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from .. import transport
from ..addresses import Secret
from ..config import EMBEDDED, TEMPERATURE, Options, conceal, device_id
from ..errors import InvalidRequestError
from ..limits.breaker import Health
from ..messages import Messages
from ..protocol import catalog, signing
from ..protocol.events import Decoder
from ..protocol.request import ChatRequest, encode, prompt_from_messages
from ..reply import Reply
from ..transport.health import endpoint
from .base import AsyncGeneratorProvider, ProviderModelMixin


class FlowGpt(AsyncGeneratorProvider, ProviderModelMixin):
    """The FlowGPT chat API as an async generator of texts.

    `working`: False while the configured endpoint's circuit is open, in this process; `health` says since when and why.
    It is no claim about the public service.
    """

    url: ClassVar[str] = "https://flowgpt.com/chat"
    supports_message_history: ClassVar[bool] = True
    supports_system_message: ClassVar[bool] = True
    default_model: ClassVar[str] = catalog.DEFAULT_MODEL
    models: ClassVar[list[str]] = list(catalog.MODELS)
    model_aliases: ClassVar[dict[str, str]] = dict(catalog.ALIASES)
    models_as_of: ClassVar[str] = catalog.AS_OF

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

        `model`: an id or alias, "" for the configured or default one. `proxy`: None as configured, "" none.
        `temperature`: 0 to 2. `options`: `flowgpt.config.Options`.
        Raises: InvalidRequestError, before anything is sent.
        """
        proxy = conceal(options, proxy)
        call, chosen = cls.call(model, messages, proxy=proxy, temperature=temperature, **options)
        return Reply(transport.Stream(call), model=chosen)

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
        """The request that `stream` sends, and the model that it asks. Arguments and errors are those of `stream`."""
        proxy = conceal(options, proxy)
        call = Options.resolve(**{"model": model or None, "proxy": proxy, "temperature": temperature} | options)
        if call.base_url == EMBEDDED:
            raise InvalidRequestError(
                "base_url 'embedded' is for the terminal",
                code="bad_base_url",
                hint="in Python: `with flowgpt.embedded.Server() as server:` and base_url=server.base_url",
            )
        chosen = cls.get_model(call.model, allow_unknown_model=call.allow_unknown_model, extra_models=call.extra_models)
        request = ChatRequest(
            model=chosen,
            prompt=prompt_from_messages(messages, greeting=call.greeting),
            temperature=call.temperature,
            nsfw=call.nsfw,
            prompt_id=call.prompt_id or None,
            document_ids=call.document_ids,
            generate_image=call.generate_image,
            signed_in=call.api_key is not None,
            user_id=call.user_id,
            conversation_id=call.conversation_id,
            extra=call.extra_body,
        )

        def headers(now_s: float) -> dict[str, str]:
            bearer = Secret(signing.authorization(call.api_key))
            return signing.headers(
                authorization=bearer,
                timestamp_s=int(now_s),
                nonce=secrets.token_hex(16),
                device_id=device_id(),
            )

        return transport.Call(call.base_url + request.path, encode(request), headers, Decoder, call), chosen

    @classmethod
    def health(cls, **options: Any) -> Health:
        """What this process knows of the endpoint that a call with these options would ask. Nothing is sent.

        Raises: InvalidRequestError.
        """
        return endpoint(Options.resolve(**options)).health()

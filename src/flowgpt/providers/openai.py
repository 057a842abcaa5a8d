"""Any server that speaks OpenAI's chat completions as a provider: Ollama, vLLM, llama.cpp, LM Studio. No HTTP in here.

Its address and its key are its own. Those of a call are FlowGPT's, and never reach this server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import transport
from ..addresses import Secret, parse_api_url
from ..config import OPTIONS, TEMPERATURE, Options, conceal
from ..errors import InvalidRequestError, ModelNotFoundError
from ..formats.openai.chat_reply import ReplyDecoder
from ..limits.breaker import Health
from ..messages import Messages
from ..protocol.request import json_body, turns_from_messages
from ..reply import Reply
from ..transport.health import endpoint
from .base import known_model

PATH = "/chat/completions"


class OpenAICompatible:
    """One server, as a provider: `Client(provider=OpenAICompatible("http://127.0.0.1:11434/v1", model="llama3"))`.

    `base_url`: http(s)://host[:port][/path]; an origin alone means its `/v1`. `api_key`: sent as bearer token.
    `model`: the default one; without it, the first of `models`. `models`: all that there are; without them any id is
    sent as it is, and nothing is asked for a list. `name`: what messages call it.
    Raises: InvalidRequestError.
    """

    supports_message_history = True
    supports_system_message = True

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str = "",
        models: Sequence[str] = (),
        name: str = "openai",
    ) -> None:
        own: dict[str, Any] = {"base_url": base_url, "api_key": api_key}
        conceal(own)
        del base_url, api_key  # no traceback shows them (K1)
        self.__name__, self.url = name, ""  # what repr shows, in a traceback too
        if isinstance(models, str) or not all(isinstance(text, str) for text in (model, name, *models)):
            raise InvalidRequestError("model and name must be strings, and models a list of strings")
        self.url = parse_api_url(own["base_url"])
        self.models = list(models)
        self.model_aliases: dict[str, str] = {}
        self.default_model = model or (self.models[0] if self.models else "")
        self._api_key: Secret | None = (
            None if own["api_key"] is None else OPTIONS["api_key"].metadata["check"](own["api_key"])
        )

    def __repr__(self) -> str:
        return f"<OpenAICompatible {self.__name__!r} at {self.url}>"

    @property
    def working(self) -> bool:
        """False while its circuit is open, in this process."""
        return self.health().working

    def health(self, **options: Any) -> Health:
        """What this process knows of the server. Nothing is sent. Raises: InvalidRequestError."""
        return endpoint(self._resolved(options)).health()

    def get_models(self) -> list[str]:
        """The ids of the models, as far as they were named: `models`, or the default one alone."""
        return list(self.models) or [id_ for id_ in (self.default_model,) if id_]

    def get_model(self, model: str = "", *, allow_unknown_model: bool = False, extra_models: Sequence[str] = ()) -> str:
        """The id to send; "" gives the default.

        Raises: ModelNotFoundError, naming the nearest ids; also when neither call nor provider names a model.
        """
        known = known_model(self, model, allow_unknown_model=allow_unknown_model, extra_models=extra_models)
        if not known:
            raise ModelNotFoundError(
                f"{self.__name__} has no default model, and none is asked for",
                hint='OpenAICompatible(..., model="...")',
            )
        return known

    def stream(
        self,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Reply:
        """The reply in its full form; nothing is sent before it is read.

        `options`: `flowgpt.config.Options`, of which those of FlowGPT's own request have no meaning here; nor has a
        configured `model`, which names FlowGPT's. `extra_body` is for all else that this server takes.
        Raises: InvalidRequestError, before anything is sent.
        """
        proxy = conceal(options, proxy)
        call = self._resolved({"proxy": proxy, "temperature": temperature} | options)
        chosen = self.get_model(model, allow_unknown_model=call.allow_unknown_model, extra_models=call.extra_models)
        body = json_body(
            {
                "model": chosen,
                "messages": _messages(messages, call.greeting),
                "temperature": call.temperature,
                "stream": True,
            },
            call.extra_body,
        )

        def headers(_now_s: float) -> dict[str, str]:
            bearer = {} if self._api_key is None else {"Authorization": Secret("Bearer " + self._api_key)}
            return {"Accept": "text/event-stream", "Content-Type": "application/json", **bearer}

        def decoder() -> ReplyDecoder:
            return ReplyDecoder(self._api_key)

        request = transport.Call(self.url + PATH, body, headers, decoder, call, signed=False)
        return Reply(transport.Stream(request), model=chosen)

    def _resolved(self, options: dict[str, Any]) -> Options:
        """The options of a call to this server, with its own address and key. Raises: InvalidRequestError."""
        conceal(options)
        origin = "/".join(self.url.split("/", 3)[:3])  # by which the environment names a proxy
        resolved = Options.resolve(**options | {"base_url": origin, "api_key": self._api_key})
        return replace(resolved, base_url=self.url, api_key=self._api_key)


def _messages(messages: Messages, greeting: str | None) -> list[dict[str, str]]:
    """The conversation as it is sent; a greeting is an assistant turn behind the system messages that begin it."""
    turns = [{"role": turn.role, "content": turn.content} for turn in turns_from_messages(messages)]
    if greeting is not None:
        begin = next((place for place, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
        turns.insert(begin, {"role": "assistant", "content": greeting})
    return turns

"""The gateway as an ASGI application: guard → key → route, and what each route does; a failure becomes its status.

Answers are service.py's. Nothing here parses a dialect, retries, or speaks to a socket.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from ..client import AsyncClient
from ..config import conceal
from ..errors import ModelNotFoundError
from ..formats import parameters
from ..formats.anthropic.answer import count_tokens
from ..formats.anthropic.request import CountTokensRequest
from ..formats.estimate import characters
from ..formats.openai import responses_request
from ..formats.openai.models import Model, ModelList
from ..formats.pieces import Encoder
from ..providers import registry
from ..providers.base import Provider, health
from ..store import Store
from . import access, answer, failures, guard, openapi, stored, tracing
from .auth import Auth
from .dialects import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Dialect
from .exchange import ClientLeft, Exchange
from .failures import Refusal
from .metrics import Metrics
from .service import Service, told
from .settings import Settings
from .visit import Visit

LIMIT_BODY_BYTES = 8 * 1024 * 1024
"""As much as the provider may send."""

IMPOSSIBLE = (
    *("assistants", "audio", "batches", "containers", "conversations", "embeddings", "evals", "files", "fine_tuning"),
    *("images", "moderations", "realtime", "threads", "uploads", "vector_stores", "videos"),
)
"""What OpenAI's API has and FlowGPT has not: the first word after /v1/."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

T = TypeVar("T", bound=msgspec.Struct)

Act = Callable[[Scope, Exchange, Visit], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route's end: its fixed name, what it does, and whether it asks nobody for a key."""

    route: str
    act: Act
    public: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"]
        await self.enter(gateway.auth, scope, scope["flowgpt.exchange"], scope["flowgpt.visit"])

    async def enter(self, auth: Auth, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        """Ask for a key, and do it. Raises: Refusal."""
        visit.route = self.route
        if not self.public:
            visit.owner = auth.owner(exchange.fields, scope["query_string"])
        await self.act(scope, exchange, visit)


def create_app(
    provider: Provider | None = None,
    *,
    settings: Settings | None = None,
    bound_hosts: Sequence[str] = (),
    store: Store | None = None,
    **options: Any,
) -> Gateway:
    """The gateway, to be served or mounted.

    `provider`: None is the configured one, and with a `base_url` it is FlowGPT there.
    `settings`: by default as the configuration file says. `bound_hosts`: names of the address it is served on.
    `store`: where keys and stored responses are; without one there are neither. `options`: `flowgpt.config.Options`
    for the provider. Raises: InvalidRequestError for wrong settings.
    """
    conceal(options)
    return Gateway(registry.chosen(provider, options), settings or Settings.resolve(), bound_hosts, store, options)


class Gateway:
    """The ASGI application. To stop: `drain`, then `finish`; what serves it does so at SIGTERM."""

    def __init__(
        self,
        provider: Provider,
        settings: Settings,
        bound_hosts: Sequence[str],
        store: Store | None,
        options: dict[str, Any],
    ) -> None:
        self.auth = Auth(store, insecure_no_auth=settings.insecure_no_auth)
        self.service = Service(provider, settings, options)
        self._provider, self._options = provider, options
        self._settings = settings
        self._hosts = guard.hosts(bound_hosts, settings)
        self._store = store
        self._models = AsyncClient(provider=provider, **options).models
        self._metrics = Metrics(getattr(provider, "models", ()))
        routes = self._routes()
        self._router = Router(routes, redirect_slashes=False)
        self._posts = {
            route.path: route.endpoint
            for route in routes
            if route.methods == {"POST"} and isinstance(route.endpoint, Endpoint)
        }

    def _routes(self) -> list[Route]:
        def route(path: str, name: str, act: Act, *methods: str, public: bool = False) -> Route:
            return Route(path, Endpoint(name, act, public), methods=methods or None)

        return [
            route("/v1/chat/completions", "chat", self._work(partial(self._post, CHAT)), "POST"),
            route("/v1/responses", "responses", self._work(self._post_response), "POST"),
            route("/v1/messages", "messages", self._work(partial(self._post, MESSAGES)), "POST"),
            route("/v1/messages/count_tokens", "count_tokens", self._work(self._count_tokens), "POST"),
            route("/v1/completions", "completions", self._work(partial(self._post, COMPLETIONS)), "POST"),
            route("/v1/models", "models", self._list_models, "GET"),
            route("/v1/models/{id:path}", "model", self._model, "GET"),
            route("/v1/responses/{id}", "response", self._response, "GET", "DELETE"),
            route("/v1/responses/{id}/input_items", "input_items", self._input_items, "GET"),
            *(route(f"/v1/{word}", "impossible", _impossible) for word in IMPOSSIBLE),
            *(route(f"/v1/{word}/{{rest:path}}", "impossible", _impossible) for word in IMPOSSIBLE),
            route("/healthz", "healthz", _healthz, "GET", public=True),
            route("/readyz", "readyz", self._readyz, "GET", public=True),
            route("/metrics", "metrics", self._show_metrics, "GET"),
            route("/openapi.json", "openapi", _openapi, "GET"),
        ]

    # --- stopping ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """From now on /readyz and new work get 503; what is under way goes on."""
        self.service.draining = True

    async def finish(self) -> None:
        """End what is still under way with an error, and wait for it."""
        self.service.cut()
        await self.service.wait_until_idle()

    # --- one request ---------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        fields = guard.fields(scope["headers"])
        asked_id = fields.get(b"x-request-id", ("",))[-1]
        visit = Visit(
            request_id=asked_id if REQUEST_ID.fullmatch(asked_id) else f"req_{os.urandom(12).hex()}",
            method=scope["method"],
            started_s=time.monotonic(),
            traceparent=fields.get(b"traceparent", (None,))[-1],
        )
        fixed = guard.answer_headers(fields, self._settings)
        exchange = Exchange(scope, receive, send, self._settings, visit, fields, fixed)
        span = tracing.begin(tracing.tracer(), visit)
        self._metrics.begin()
        try:
            await self._route(scope, receive, send, exchange, visit)
        except ClientLeft:
            visit.code = "client_left"
        except Exception as error:
            await self._fail(error, scope, exchange, visit)
        finally:
            exchange.close()
            visit.total_s = time.monotonic() - visit.started_s
            self._metrics.count(visit)
            access.write(visit)
            tracing.end(span, visit)

    async def _route(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange, visit: Visit) -> None:
        """Past the guard to the route's end: those of POST at once, the others by the router. Raises: Refusal."""
        preflight = guard.check(scope, exchange.fields, hosts=self._hosts, settings=self._settings)
        if preflight is not None:
            visit.route = "preflight"
            await exchange.whole(204, b"", preflight)
            return
        if scope["method"] == "POST" and not scope.get("root_path"):
            endpoint = self._posts.get(scope["path"])
            if endpoint is not None:
                await endpoint.enter(self.auth, scope, exchange, visit)
                return
        # With an "app", Starlette's router raises for an unknown route, and leaves the answer to us.
        inner = {**scope, "app": self, "flowgpt.visit": visit, "flowgpt.exchange": exchange}
        await self._router(inner, receive, send)

    async def _fail(self, error: Exception, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        """Answer a failure with its status."""
        if isinstance(error, HTTPException):  # the router's own: no such route, or not with this method
            phrase = HTTPStatus(error.status_code).phrase.lower()
            words = f"{scope['method']} {scope['path'][:100]!a}: {phrase}"
            problem = Refusal(error.status_code, "unknown_route", words).problem
            headers = [*(error.headers or {}).items()]
        else:
            problem = failures.problem(error)
            headers = [*getattr(error, "headers", ())]
        visit.code = problem.code
        if exchange.started:  # a part of an answer is out: what is cut must not look whole
            exchange.abort()
            return
        if problem.retry_after_s is not None:
            headers.append(("retry-after", str(max(1, math.ceil(problem.retry_after_s)))))
        if not problem.retriable:
            headers.append(("x-should-retry", "false"))
        dialect = MESSAGES if "/v1/messages" in scope["path"] else CHAT
        body = dialect.error(replace(problem, request_id=visit.request_id))
        await exchange.whole(problem.status, msgspec.json.encode(body), headers)

    # --- what the routes do --------------------------------------------------------------------------------------

    def _work(self, act: Act) -> Act:
        """What costs something: it is admitted before its body is waited for."""

        async def admitted(scope: Scope, exchange: Exchange, visit: Visit) -> None:
            guard.check_json(exchange.fields)
            self.service.enter(exchange, visit.owner)
            try:
                await act(scope, exchange, visit)
            finally:
                self.service.leave(exchange, visit.owner, visit.n)

        return admitted

    async def _post(self, dialect: Dialect, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        read = parameters.read(await exchange.body(LIMIT_BODY_BYTES), dialect.request)
        await self.service.answer(dialect, read, dialect.ask(read.values), exchange, visit, _nothing)

    async def _post_response(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        read = parameters.read(await exchange.body(LIMIT_BODY_BYTES), responses_request.ResponsesRequest)
        earlier = await stored.earlier(self._store, visit.owner, read.values)
        ask = responses_request.ask(read.values, earlier)

        async def keep(encoder: Encoder) -> None:
            await stored.keep(self._store, visit.owner, read.values, encoder, earlier, self._settings)

        await self.service.answer(RESPONSES, read, ask, exchange, visit, keep)

    async def _count_tokens(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        read = parameters.read(await exchange.body(LIMIT_BODY_BYTES), CountTokensRequest)
        ask = MESSAGES.ask(read.values)
        messages = answer.messages(ask)
        self.service.reply(ask, messages).close()  # whether it could be asked
        await exchange.whole(200, count_tokens(characters(messages)), told(read))

    async def _list_models(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        await exchange.whole(200, msgspec.json.encode(ModelList(data=await self._known_models())))

    async def _model(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        asked = scope["path_params"]["id"]
        named = [model for model in await self._known_models() if model.id == asked]
        if not (named or asked):
            raise Refusal(404, "model_not_found", "no model is named", param="model")
        try:
            model = named[0] if named else await self._models.retrieve(asked)
        except ModelNotFoundError:
            if not self._settings.any_model:
                raise
            model = Model(id=asked, created=0, owned_by="", alias_of=self._settings.any_model)
        await exchange.whole(200, msgspec.json.encode(model))

    async def _known_models(self) -> list[Model]:
        known = list(await self._models.list())
        owner = known[0].owned_by if known else ""
        return known + [
            Model(id=name, created=0, owned_by=owner, alias_of=target)
            for name, target in self._settings.model_names.items()
        ]

    async def _response(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        if b"stream=true" in scope["query_string"].lower():
            raise Refusal(400, "unsupported_parameter", "stream: a stored response is given whole", param="stream")
        act = stored.delete if scope["method"] == "DELETE" else stored.get
        await exchange.whole(200, await act(self._store, visit.owner, scope["path_params"]["id"]))

    async def _input_items(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        items = await stored.input_items(self._store, visit.owner, scope["path_params"]["id"], scope["query_string"])
        await exchange.whole(200, items)

    async def _readyz(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        self.auth.check()
        known = health(self._provider, **self._options)
        facts: dict[str, Any] = {"status": "ready"}
        if self.service.draining:
            facts = {"status": "draining"}
        elif not known.asked:  # once a probe is due it is ready: only a request can close the circuit
            facts = {"status": "circuit open"}
            if known.since_s is not None:
                since = datetime.fromtimestamp(int(known.since_s), UTC).isoformat()
                facts |= {"since": since, "reason": known.reason, "again_s": known.again_s}
        await exchange.whole(200 if facts["status"] == "ready" else 503, msgspec.json.encode(facts))

    async def _show_metrics(self, scope: Scope, exchange: Exchange, visit: Visit) -> None:
        body, content_type = self._metrics.render()
        await exchange.whole(200, body, content_type=content_type)


async def _nothing(encoder: Encoder) -> None:
    """What most answers want at their end."""


async def _impossible(scope: Scope, exchange: Exchange, visit: Visit) -> None:
    raise Refusal(501, "not_supported", f"FlowGPT cannot do this: {scope['path'][:100]!a}")


async def _healthz(scope: Scope, exchange: Exchange, visit: Visit) -> None:
    await exchange.whole(200, b'{"status":"ok"}')


async def _openapi(scope: Scope, exchange: Exchange, visit: Visit) -> None:
    await exchange.whole(200, openapi.encoded())

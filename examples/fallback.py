"""Two providers as one: when the first fails before its first text, the next one answers, and the reply says who."""

from typing import Any, ClassVar

from flowgpt import Client, Fallback, FlowGpt, FlowGPTError
from flowgpt.embedded import Server
from flowgpt.providers.base import AsyncGeneratorProvider, AsyncResult, Messages, ProviderModelMixin


class Echo(AsyncGeneratorProvider, ProviderModelMixin):
    """A provider of one's own. For a model server: `OpenAICompatible("http://127.0.0.1:11434/v1", model="llama3")`."""

    default_model = "echo-1"
    models: ClassVar = ["echo-1"]

    @classmethod
    async def create_async_generator(
        cls,
        model: str = "",
        messages: Messages = (),
        proxy: str | None = None,
        temperature: float = 0.7,
        **options: Any,
    ) -> AsyncResult:
        yield f"You asked: {messages[-1]['content']}"


question = [{"role": "user", "content": "Is anybody there?"}]
with Server() as server, Client(provider=Fallback([FlowGpt, Echo]), base_url=server.base_url, max_retries=0) as client:
    for fault in (None, "status:500", "cut_mid_line"):
        if fault:
            server.fault(fault)
        try:
            completion = client.chat.completions.create(model="gpt-4-turbo", messages=question)
        except FlowGPTError as error:
            print(f"{fault}: {type(error).__name__}: nobody else is asked once a text has come")
        else:
            print(f"{fault}: {completion.model}: {(completion.choices[0].message.content or '').splitlines()[0]}")

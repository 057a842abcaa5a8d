"""The OpenAI-style client, sync: a whole answer, and a streamed one."""

from flowgpt import Client
from flowgpt.embedded import Server

with Server() as server, Client(base_url=server.base_url, timeout=30) as client:
    question = [{"role": "user", "content": "Why is the sky blue?"}]

    completion = client.chat.completions.create(model="gpt-4-turbo", messages=question)
    print(completion.choices[0].message.content, f"[{completion.choices[0].finish_reason}]")

    with client.chat.completions.create(messages=question, stream=True) as stream:
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

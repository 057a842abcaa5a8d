"""The peers as a table: what each is, by what command it runs, what it is asked. Their versions are those installed.

Each runs in a folder of its own as HOME, with no way out: what it would tell its makers or load from them by HTTPS goes
to a port where nobody listens.
"""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..native import Client, Served
from ..servers import Asking

ROOT = Path(__file__).parents[2]
G4F = str(ROOT / ".venv-peers-g4f" / "bin" / "python")
LITELLM = str(ROOT / ".venv-peers-litellm" / "bin" / "python")
PORTKEY = ROOT / "benchmarks" / "peers" / "node" / "node_modules" / "@portkey-ai" / "gateway"
ALONE = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "AIOHTTP_CONNECTOR_LIMIT": "100000",  # LiteLLM's, which is 500 a host otherwise
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "100000",
}
KEY = "sk-benchmarks-0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Kind:
    """A peer that asks: its interpreter, the name in programs/client.py, what a program that uses it imports."""

    python: str
    name: str
    imports: str = ""
    holds: bool = True
    """Whether it keeps 1,000 streams open: g4f has no more than 20 connections to one host."""

    @contextmanager
    def running(self, origin: str) -> Iterator[Client]:
        """The process."""
        command = [self.python, "-m", "benchmarks.peers.programs.client", self.name, origin]
        with tempfile.TemporaryDirectory() as home, Client(command, env={**ALONE, "HOME": home}) as client:
            yield client


CLIENTS = {
    "g4f, FlowGPT's lines": Kind(G4F, "g4f-lines", holds=False),
    "g4f's own provider": Kind(G4F, "g4f", "from g4f.client import AsyncClient", holds=False),
    "httpx": Kind(G4F, "httpx", "from httpx import AsyncClient"),
    "openai": Kind(G4F, "openai", "from openai import AsyncOpenAI"),
    "litellm": Kind(LITELLM, "litellm", "from litellm import acompletion"),
}


@dataclass(frozen=True, slots=True)
class Gateway:
    """A peer that serves OpenAI's API. `{origin}` is filled in everywhere, `{port}` and `{conf}` in the command."""

    command: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    conf: str = ""
    holds: bool = True

    @contextmanager
    def running(self, origin: str) -> Iterator[Asking]:
        """The process, and how it is asked."""
        with ExitStack() as stack:
            conf = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml"))
            conf.write(self.conf.replace("{origin}", origin))
            conf.flush()
            command = [word.replace("{origin}", origin).replace("{conf}", conf.name) for word in self.command]
            served = stack.enter_context(Served(command, env=ALONE))
            headers = {name: value.replace("{origin}", origin) for name, value in self.headers.items()}
            yield Asking(served, headers=headers)


GATEWAYS = {
    "Starlette, httpx": Gateway((G4F, "-m", "benchmarks.peers.programs.starlette_app", "{port}", "{origin}")),
    "Portkey's gateway": Gateway(
        ("node", str(PORTKEY / "build" / "start-server.js"), "--port={port}", "--headless"),
        {"x-portkey-provider": "openai", "x-portkey-custom-host": "{origin}/v1", "Authorization": "Bearer none"},
    ),
    "g4f's API": Gateway((G4F, "-m", "benchmarks.peers.programs.g4f_api", "{port}", "{origin}"), holds=False),
    "LiteLLM's proxy": Gateway(
        (
            LITELLM,
            str(Path(LITELLM).with_name("litellm")),
            "--config",
            "{conf}",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
        ),
        {"Authorization": f"Bearer {KEY}"},
        # JSON is YAML.
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": "gpt-3.5-turbo",
                        "litellm_params": {
                            "model": "openai/gpt-3.5-turbo",
                            "api_base": "{origin}/v1",
                            "api_key": "none",
                        },
                    }
                ],
                "general_settings": {"master_key": KEY},
            }
        ),
    ),
}


@functools.cache
def versions() -> str:
    """Of all of them, as installed."""
    packages = {G4F: ("g4f", "openai", "httpx", "starlette", "uvicorn"), LITELLM: ("litellm", "openai")}
    code = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    found = [_said([python, "-c", code, *names]) for python, names in packages.items()]
    portkey = json.loads((PORTKEY / "package.json").read_text())["version"]
    return "; ".join([*found, f"@portkey-ai/gateway {portkey}, Node.js {_said(['node', '--version'])}"])


def _said(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

"""docs/clients/: the code on each page runs as it stands there, but for the address and what sets up or serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MODEL, Gateway, Serve

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "clients"
PAGES = {page.name: page.read_text("utf-8") for page in DOCS.glob("*.md")}

ADDRESS = "http://127.0.0.1:8080"
SAID = "The model says: Say hello."


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def pages(language: str) -> list[str]:
    return sorted(page for page in PAGES if blocks(page, language))


def run(command: list[str], gateway: Gateway, home: Path, **where: Any) -> str:
    """What the command prints to stdout."""
    environment = os.environ | {"HOME": str(home), "LLM_USER_PATH": str(home / "llm"), "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [part.replace(ADDRESS, gateway.origin) for part in command]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False, **where
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sessions() -> list[Any]:
    """The Python of each page, by the library that it is about; those that go with OpenAI's version 2 run with it."""
    found: dict[tuple[str, str], str] = {}
    for page in pages("python"):
        about = ""
        for block in blocks(page, "python"):
            if first := re.match(r"(?:from|import) (openai|anthropic|langchain_openai|llama_index|litellm)", block):
                about = first[1]
            found[page, about] = found.get((page, about), "") + block
    return [pytest.param(about, code, id=f"{page}-{about}") for (page, about), code in found.items()]


@pytest.mark.parametrize(("about", "code"), sessions())
def test_the_python_of_a_page_runs(about: str, code: str, gateway: Gateway, tmp_path: Path) -> None:
    older = about in ("llama_index", "litellm")
    python = str(ROOT / ".venv-clients-openai2" / "bin" / "python") if older else sys.executable

    printed = run([python, "-c", code], gateway, tmp_path)

    assert SAID in printed


@pytest.mark.parametrize("page", pages("js"))
def test_the_javascript_of_a_page_runs(page: str, gateway: Gateway, tmp_path: Path) -> None:
    code = "".join(blocks(page, "js"))

    assert SAID in run(["node", "--input-type=module", "-e", code], gateway, tmp_path, cwd=ROOT / "tests/clients/node")


@pytest.mark.parametrize("page", [page for page in pages("sh") if page != "apps.md"])
def test_the_shell_of_a_page_runs(page: str, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()

    printed = run(["sh", "-ec", "".join(blocks(page, "sh"))], gateway, tmp_path)

    assert SAID in printed or f'"id":"{MODEL}"' in printed


def test_the_list_of_models_for_litellm_is_one(gateway: Gateway, tmp_path: Path) -> None:
    (listed,) = blocks("litellm.md", "yaml")
    code = (
        f"import litellm, yaml\nmodels = yaml.safe_load('''{listed}''')['model_list']\n"
        "asked = litellm.Router(models).completion('flowgpt', [{'role': 'user', 'content': 'Say hello.'}])\n"
        "print(asked.choices[0].message.content)"
    )

    assert SAID in run([str(ROOT / ".venv-clients-openai2" / "bin" / "python"), "-c", code], gateway, tmp_path)


# --- programs with windows: what they ask for is asked for -------------------------------------------------------


def ask(url: str, key: str | None, body: Any = None, host: str | None = None) -> tuple[int, bytes]:
    headers = {"content-type": "application/json"}
    headers |= {"authorization": f"Bearer {key}"} if key is not None else {}
    headers |= {"host": host} if host else {}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
OF_SILLYTAVERN = {"temperature": 1, "max_tokens": 300, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0} | {
    "stop": ["\nAda:"]
}


@pytest.mark.parametrize(
    ("section", "key", "more"),
    [("Open WebUI", "none", {"stream_options": {"include_usage": True}}), ("SillyTavern", None, OF_SILLYTAVERN)],
)
def test_the_address_of_a_program_lists_models_and_answers(
    gateway: Gateway, section: str, key: str | None, more: Any
) -> None:
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGES["apps.md"], re.MULTILINE | re.DOTALL)
    base_url = re.findall(rf"{re.escape(ADDRESS)}\S*?(?=[`\s])", text)[0].replace(ADDRESS, gateway.origin)

    status, listed = ask(f"{base_url}/models", key)
    assert status == 200
    assert MODEL in {model["id"] for model in json.loads(listed)["data"]}
    status, stream = ask(f"{base_url}/chat/completions", key, CHAT | more)
    assert status == 200
    texts = re.findall(rb'"content":"(.*?)"', stream)
    assert b"".join(texts).decode() == SAID
    assert stream.endswith(b"data: [DONE]\n\n")


def test_a_container_reaches_the_gateway_as_the_page_says(serve: Serve, gateway: Gateway, tmp_path: Path) -> None:
    _, block = blocks("apps.md", "sh")
    adding, serving = (line.split()[1:] for line in block.splitlines())
    home = tmp_path / "gateway"
    home.mkdir()
    added = subprocess.run(
        [sys.executable, "-P", "-m", "flowgpt", *adding],
        env=os.environ | {"FLOWGPT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    key, host = added.stdout.strip(), "host.docker.internal:8080"
    port = serve(*serving[1:], home=home).origin.rpartition(":")[2]
    base_url = f"http://127.0.0.1:{port}/v1"

    assert ask(f"{base_url}/models", key, host=host)[0] == 200
    assert ask(f"{base_url}/chat/completions", key, CHAT, host=host)[0] == 200
    assert ask(f"{base_url}/models", "wrong", host=host)[0] == 401
    assert ask(f"{base_url}/models", key, host="elsewhere.invalid")[0] == 421


# --- the pages themselves ----------------------------------------------------------------------------------------


def test_the_index_names_every_page_and_no_page_is_long() -> None:
    assert set(re.findall(r"\]\(([a-z-]+\.md)\)", PAGES["README.md"])) == PAGES.keys() - {"README.md"}
    for page, text in PAGES.items():
        assert len(text.splitlines()) <= 60, page

"""The house: which room imports which, and what may never come into one. Every import of the source is read.

Provenance: the project's design, "The house" and its side rules. A new room gets a line in ROOMS, a new library a line
in LIBRARIES; whoever adds one says why.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "flowgpt"

ROOMS = {
    "version": 0,
    "errors": 0,
    "messages": 0,
    "protocol": 1,
    "addresses": 1,
    "conversation": 1,
    "formats": 1,
    "limits": 1,
    "config": 2,
    "reply": 2,
    "serving": 2,
    "transport": 2,
    "bridge": 2,
    "store": 2,
    "providers": 3,
    "client": 4,
    "batch": 5,
    "embedded": 5,
    "": 5,  # flowgpt/__init__.py: the public names
    "gateway": 6,
    "cli": 6,
    "integrations": 6,
    "__main__": 7,
}
"""Each room's floor: a room imports from its own floor and from those under it."""

PURE = ("errors", "messages", "addresses", "conversation", "protocol", "formats", "limits")
FACES = ("gateway", "cli", "integrations")

LIBRARIES: dict[str, tuple[str, ...]] = {
    "msgspec": tuple(ROOMS),
    "aiohttp": ("transport", "embedded.responders"),
    "aiohttp_socks": ("transport",),
    "yarl": ("transport",),
    "sqlite3": ("store.file",),
    "tomllib": ("config.file",),
    "platformdirs": ("config",),
    "starlette": ("embedded", "gateway", "serving"),
    "uvicorn": ("serving",),
    "httptools": ("serving",),
    "uvloop": ("serving", "cli"),
    "jsonschema_rs": ("formats.stages.schema",),
    "prometheus_client": ("gateway.metrics",),
    "opentelemetry": ("gateway.tracing",),
    "click": ("cli",),
    "markdown_it": ("cli.view",),
    "prompt_toolkit": ("cli.prompt",),
    "rich": ("cli",),
    "tomlkit": ("config.edit",),
    "pytest": ("embedded.pytest_plugin",),
}
"""Who may import what: every third-party library, and of the standard library what belongs to one room."""

IMPURE = {"asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "select", "shutil", "socket", "ssl"} | {
    "subprocess",
    "tempfile",
    "threading",
    "time",
}
"""What a pure room never imports: time, chance and the outside come in as arguments."""


class Import(NamedTuple):
    """One module imports another; `names` are the words it takes from it. `typing`: for the type checker only."""

    importer: str
    target: str
    names: tuple[str, ...]
    typing: bool

    def __str__(self) -> str:
        return f"{self.importer} → {self.target}"


def name_of(path: Path) -> str:
    """The module's name within the package: "" for its root, "protocol.events" for a file."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or (room and module.startswith(room + ".")) for room in rooms)


def room(module: str) -> str:
    return module.partition(".")[0]


def import_nodes(node: ast.AST, *, typing: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement at any depth, and whether it stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, typing
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for part in child.body:
                yield from import_nodes(ast.Module([part], []), typing=True)
            for part in child.orelse:
                yield from import_nodes(ast.Module([part], []), typing=typing)
        elif not isinstance(child, ast.expr):
            yield from import_nodes(child, typing=typing)


def imports_of(module: str, tree: ast.AST, *, package: bool) -> Iterator[Import]:
    """What a module imports, ours with names within the package (".protocol.events"), others with their own."""
    for node, typing in import_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, inner(alias.name), (alias.name,), typing)
            continue
        names = tuple(alias.name for alias in node.names)
        if node.level:
            here = module.split(".") if module else []
            up = node.level - 1 if package else node.level
            base = here[: len(here) - up]
            target = "." + ".".join([*base, *(node.module or "").split(".")]).strip(".")
        else:
            target = inner(node.module or "")
        if not target.startswith("."):
            yield Import(module, target, names, typing)
            continue
        for name in names:
            deeper = f"{target}.{name}" if target != "." else f".{name}"
            yield Import(module, deeper if deeper[1:] in FILES else target, (name,), typing)


def inner(name: str) -> str:
    return "." + name.removeprefix("flowgpt").lstrip(".") if name.partition(".")[0] == "flowgpt" else name


IMPORTS = [
    found
    for module, tree in TREES.items()
    for found in imports_of(module, tree, package=FILES[module].name == "__init__.py")
]
OURS = [
    Import(found.importer, found.target[1:], found.names, found.typing)
    for found in IMPORTS
    if found.target.startswith(".")
]
FOREIGN = [found for found in IMPORTS if not found.target.startswith(".") and found.target != "__future__"]


def test_the_reader_of_imports_sees_every_form() -> None:
    tree = ast.parse(
        "import os, flowgpt.errors\nfrom . import x\nfrom ..errors import A, B\nfrom .. import protocol, __version__\n"
        "from flowgpt.protocol import events\nif TYPE_CHECKING:\n    from ..config import C\nelse:\n    import re\n"
        "def f():\n    try:\n        import json\n    except ImportError:\n        from ..client import D\n"
    )

    assert [(found.target, found.typing) for found in imports_of("providers.base", tree, package=False)] == [
        ("os", False),
        (".errors", False),
        (".providers", False),
        (".errors", False),
        (".errors", False),
        (".protocol", False),
        (".", False),
        (".protocol.events", False),
        (".config", True),
        ("re", False),
        ("json", False),
        (".client", False),
    ]
    package = imports_of("cli", ast.parse("from .ask import f\nfrom .. import g"), package=True)
    assert [str(found) for found in package] == ["cli → .cli.ask", "cli → ."]


# Arrows


def test_every_room_is_in_the_plan() -> None:
    assert {room(module) for module in FILES} - ROOMS.keys() == set()
    assert len(FILES) > 8


def test_arrows_point_down_only() -> None:
    upward = [str(found) for found in OURS if ROOMS[room(found.target)] > ROOMS[room(found.importer)]]

    assert upward == []


def test_there_is_no_circle_not_even_through_an_import_in_a_function() -> None:
    """Imports for the type checker alone are not executed, and don't count here; they do for the arrows."""
    graph: dict[str, set[str]] = {}
    for found in OURS:
        if not found.typing:
            graph.setdefault(found.importer, set()).add(found.target)
    circle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]

    assert circle == []


def test_protocol_and_formats_do_not_know_each_other() -> None:
    pairs = {(room(found.importer), room(found.target)) for found in OURS}

    assert pairs & {("protocol", "formats"), ("formats", "protocol")} == set()


def test_stages_and_dialects_do_not_know_each_other() -> None:
    kinds = ("formats.openai", "formats.anthropic", "formats.stages")
    wrong = [
        str(found)
        for found in OURS
        for kind in kinds
        if within(found.importer, (kind,)) and within(found.target, tuple({*kinds} - {kind}))
    ]

    assert wrong == []
    assert {*kinds} <= {found.importer.rpartition(".")[0] for found in OURS}


def test_a_face_never_speaks_the_protocol() -> None:
    known = ("cli.doctor", "cli.explain")
    wrong = [
        str(found)
        for found in OURS
        if within(found.importer, FACES) and room(found.target) == "protocol" and not within(found.importer, known)
    ]

    assert wrong == []


def test_the_embedded_server_is_an_independent_witness() -> None:
    """It shares the pure protocol with the provider, and no line of what sends and receives.

    Of addresses it takes `Secret`, which masks the upstream's key; serving is a server's, and sends no request.
    """
    allowed = ("protocol", "formats.sse", "messages", "errors", "addresses", "serving", "embedded")
    wrong = [str(found) for found in OURS if room(found.importer) == "embedded" and not within(found.target, allowed)]

    assert wrong == []


# Libraries


def test_each_library_stays_in_its_rooms() -> None:
    wrong = [
        str(found)
        for found in FOREIGN
        if (top := room(found.target)) in LIBRARIES or top not in sys.stdlib_module_names
        if not within(found.importer, LIBRARIES.get(top, ()))
    ]

    assert wrong == []


def test_the_environment_is_read_in_config_only() -> None:
    readers = {
        room(module)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {"environ", "getenv"} & {a.name for a in node.names}
        )
        or (isinstance(node, ast.Name) and node.id == "getproxies_environment")
    }

    assert readers <= {"config"}


@pytest.mark.parametrize("module", [module for module in FILES if within(module, PURE)])
def test_a_pure_room_has_no_clock_no_chance_and_no_outside(module: str) -> None:
    outside = {room(found.target) for found in FOREIGN if found.importer == module} & IMPURE
    waiting = [
        node.lineno
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        )
    ]

    assert (outside, waiting) == (set(), [])


# Files


@pytest.mark.parametrize("module", FILES)
def test_a_file_opens_with_what_lives_there(module: str) -> None:
    docstring = ast.get_docstring(TREES[module]) or ""
    text = FILES[module].read_text(encoding="utf-8")

    assert docstring.splitlines()[:1] != []
    assert text.startswith('"""')


def test_no_file_is_named_for_nothing() -> None:
    nothing = re.compile(r"_*(utils?|helpers?|common|managers?|misc|base_utils|tools_common)")

    assert [name for name in FILES for part in name.split(".") if nothing.fullmatch(part)] == []


MIRRORLESS = {
    "__main__": "one line; tests/cli runs it as a process",
    "formats.pieces": "values only; every test of a stage or an encoder is made of them",
    "gateway.visit": "one record only; tests/gateway/test_access.py and test_metrics.py show it",
    "version": "one line; what users see of it is compared in tests/cli and tests/providers",
}
"""Files without a test file of their own, and why. An `__init__` is tested with its room."""


def test_every_file_has_its_mirrored_test() -> None:
    missing = [
        name
        for name, path in FILES.items()
        if path.name != "__init__.py" and name not in MIRRORLESS
        if not (ROOT / "tests" / path.relative_to(SOURCE)).with_name(f"test_{path.name}").exists()
    ]

    assert missing == []
    assert MIRRORLESS.keys() <= FILES.keys()


def test_every_document_and_section_that_the_source_cites_exists() -> None:
    missing = []
    for module, path in FILES.items():
        for document, sections in re.findall(r"docs/(\w+\.md)((?:,? ?#[a-z0-9-]+)*)", path.read_text(encoding="utf-8")):
            page = ROOT / "docs" / document
            titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE) if page.exists() else []
            if not titles or set(re.findall(r"#([a-z0-9-]+)", sections)) - set(map(anchor, titles)):
                missing.append(f"{module}: docs/{document}{sections}")

    assert missing == []


def anchor(title: str) -> str:
    """The address of a heading, as Markdown viewers make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# Importing the package

WATCH = """
import json, os, sys
from importlib.util import find_spec

import msgspec  # what it loads and reads is its own affair

roots = [os.path.dirname(find_spec("flowgpt").origin), os.path.dirname(os.__file__), sys.prefix, sys.base_prefix]
roots = [os.path.realpath(root) + os.sep for root in roots]
noticed, watching, before = [], True, set(sys.modules)

def watch(event, args):
    if not watching:
        return
    if event == "open":
        path, mode, flags = args
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        outside = not isinstance(path, str) or not os.path.realpath(path).startswith(tuple(roots))
        package = isinstance(path, str) and path.startswith(roots[0]) and not path.endswith((".py", ".pyc"))
        if writes or outside or package:
            noticed.append(f"open {path!r} {mode!r} {flags}")
    elif event.startswith(("socket.", "subprocess.", "shutil.", "sqlite3.", "tempfile.", "urllib.", "_thread.start")):
        noticed.append(event)
    elif event.startswith("os.") and event not in ("os.listdir", "os.scandir"):
        noticed.append(event)

read = os._Environ.__getitem__

def reading(self, key):
    if watching:
        noticed.append(f"environment {key!r}")
    return read(self, key)

os._Environ.__getitem__ = reading
os._Environ.__iter__ = lambda self: noticed.append("the whole environment") or iter(())
sys.addaudithook(watch)
__ACT__
watching = False
loaded = {name.partition(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names - {"flowgpt"}
print(json.dumps({"noticed": noticed, "loaded": sorted(loaded)}))
"""


def watched(act: str) -> dict[str, Any]:
    """What a fresh interpreter does while it runs `act`: files outside the code, writes, environment, libraries."""
    ran = subprocess.run(
        [sys.executable, "-I", "-B", "-X", "dev", "-W", "error", "-c", WATCH.replace("__ACT__", act)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    seen: dict[str, Any] = json.loads(ran.stdout)
    return seen


def test_importing_the_package_reads_nothing_writes_nothing_and_loads_msgspec_only() -> None:
    seen = watched("import flowgpt")

    environment = [words for words in seen["noticed"] if words.startswith("environment ")]
    assert [words for words in environment if not words.startswith("environment 'PYTHON")] == []
    assert [words for words in seen["noticed"] if words not in environment] == []
    assert seen["loaded"] == []


def test_the_watch_on_imports_sees_what_it_should() -> None:
    """Without this, a watch that sees nothing would pass the test above."""
    seen = watched(
        "import os, aiohttp, tempfile; os.environ.get('HOME'); list(os.environ)\n"
        "open('/dev/null').close(); open(os.devnull, 'w').close()"
    )

    assert "aiohttp" in seen["loaded"]
    assert {"environment 'HOME'", "the whole environment"} <= set(seen["noticed"])
    assert [words for words in seen["noticed"] if "/dev/null" in words and "'w'" in words] != []
    assert [words for words in seen["noticed"] if "/dev/null" in words and "'r'" in words] != []

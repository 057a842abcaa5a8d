"""`flowgpt batch`: many questions from a file, with progress, and an account at the end.

The engine is the package's `batch`; here are its options, and what people see of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from ..batch import Counts, Settings, run
from ..batch.lines import Piped, Read
from ..batch.results import Results
from ..errors import ModelNotFoundError
from ..providers.base import Provider
from . import failures, streams
from .asking import answered_by
from .endpoint import answering

STDIO = "-"

REFRESH_S = 0.25
LINE_S = 30.0
"""How often progress is shown in a terminal, and how often it is a line elsewhere."""

WIDE = 80
"""From so many columns on there is a bar beside the words; elsewhere they may take several lines."""


@click.command("batch")
@click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=STDIO,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="where the answers go, and where a batch goes on after a stop; without it, stdout",
)
@answered_by
@click.option(
    "--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="questions at the same time"
)
@click.option("--per-minute", type=click.FloatRange(0, min_open=True), help="questions a minute, evenly, and no more")
@click.option("--ordered", is_flag=True, help="answers in the order of the questions")
@click.option(
    "--give-up-after",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=3600.0,
    show_default=True,
    help="how long to wait for a service that answers nothing",
)
@click.option("--json", "as_json", is_flag=True, help="the account as one JSON object, on stderr")
@click.option("-q", "--quiet", is_flag=True, help="no progress and no notes; failures and the account are still told")
def command(
    source: str,
    output: str,
    model: str | None,
    system: str | None,
    temperature: float | None,
    base_url: str | None,
    provider: str | None,
    proxy: str | None,
    timeout: float | None,
    concurrency: int,
    per_minute: float | None,
    ordered: bool,
    give_up_after: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Ask many questions: a line of IN each, a line of JSON for each answer.

    A line is {"prompt": "..."} or as in OpenAI's batch files. IN is - for stdin. Started again with the same IN and
    the same -o, it goes on where it was: what has its answer is not asked again.
    """
    tell = streams.notes(quiet=quiet)
    counts = Counts()
    with contextlib.ExitStack() as stack:
        file = 0
        if source != STDIO:
            file = os.open(source, os.O_RDONLY)
            stack.callback(os.close, file)
        stream = open(file, "rb", closefd=False)  # noqa: SIM115  # closing it waits for who reads a pipe
        results = None if output == STDIO else stack.enter_context(Results(Path(output), stream))
        if results is not None:
            counts.rows, counts.before_failed = results.rows, results.failed
            counts.before = results.answered + results.failed
        there = stack.enter_context(answering(provider, base_url, proxy, tell=tell))
        given = {"timeout": timeout, "temperature": temperature}
        settings = Settings(
            model=model or "",
            system=system or "",
            options=there.options | {name: value for name, value in given.items() if value is not None},
            concurrency=concurrency,
            per_minute=per_minute,
            ordered=ordered,
            give_up_after_s=give_up_after,
        )
        _check(there.provider, settings)
        try:
            with _progress(counts, tell=tell, quiet=quiet) as show:
                asyncio.run(_run(stream, results, there.provider, settings, counts, show, tell))
        except asyncio.CancelledError:
            raise click.exceptions.Exit(failures.TERMINATED) from None
        finally:
            streams.note(json.dumps(account(counts)) if as_json else words(counts))
    if counts.failed or counts.before_failed:
        raise click.exceptions.Exit(failures.UNEXPECTED)


def _check(provider: Provider, settings: Settings) -> None:
    """Refuse what would make every row fail. Nothing is sent. Raises: InvalidRequestError."""
    try:
        provider.stream(settings.model, [{"role": "user", "content": "?"}], **settings.options).close()
    except ModelNotFoundError:
        if settings.model:  # else the rows may name theirs
            raise


async def _run(
    stream: BinaryIO,
    results: Results | None,
    provider: Provider,
    settings: Settings,
    counts: Counts,
    show: Callable[[], float],
    tell: Callable[[str], None],
) -> None:
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # on Windows, or not in the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # as asyncio does it for Ctrl-C
    is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    progress = asyncio.create_task(_showing(show))
    try:
        await run(
            Read(stream) if is_file else Piped(stream),
            _to_stdout if results is None else results.write,
            provider,
            settings,
            counts,
            stands=(lambda number: False) if results is None else results.stands,
            tell=lambda what: tell(f"flowgpt: {what}"),
        )
    finally:
        progress.cancel()


async def _showing(show: Callable[[], float]) -> None:
    pause_s = show()
    while True:
        await asyncio.sleep(pause_s)
        pause_s = show()


def _to_stdout(line: bytes) -> None:
    streams.write(json.dumps(json.loads(line)) + "\n")  # ASCII: every terminal and locale can take it


# --- what people are told ---------------------------------------------------------------------------------------------


def account(counts: Counts) -> dict[str, int | None]:
    """The account, in JSON."""
    return dataclasses.asdict(counts) | {"left": counts.left}


def words(counts: Counts) -> str:
    """The account, in a line."""
    before = f"{counts.before:,} done before" + (f" ({counts.before_failed:,} failed)" if counts.before_failed else "")
    failed = f"{counts.failed:,} failed" + (f" ({counts.invalid:,} invalid)" if counts.invalid else "")
    left = "an unknown number" if counts.left is None else f"{counts.left:,}"
    parts = [before] if counts.before else []
    parts += [f"{counts.asked:,} asked", f"{counts.answered:,} answered", failed, f"{left} left"]
    return "flowgpt: " + ", ".join(parts)


def figures(counts: Counts, elapsed_s: float) -> str:
    """How far it is: rows done, failures, rate, and the time that is left by that rate."""
    now = counts.answered + counts.failed
    of = "" if counts.rows is None else f" of {counts.rows:,}"
    parts = [f"{counts.done:,}{of} rows", f"{counts.failed + counts.before_failed:,} failed"]
    if now and elapsed_s > 0:
        parts.append(f"{60 * now / elapsed_s:,.0f} a minute")
        if counts.left is not None:
            parts.append(f"{_duration(counts.left * elapsed_s / now)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextlib.contextmanager
def _progress(counts: Counts, *, tell: Callable[[str], None], quiet: bool) -> Iterator[Callable[[], float]]:
    """Show how far it is, at each call of what this gives; that says in how many seconds it wants the next one."""
    begun_s = last_s = time.monotonic()
    console = Console(stderr=True)

    def told() -> str:
        nonlocal begun_s
        if not counts.asked:  # the rows that were done before are passed over first
            begun_s = time.monotonic()
        return figures(counts, time.monotonic() - begun_s)

    if quiet or sys.stderr is None or not sys.stderr.isatty() or console.is_dumb_terminal:

        def line() -> float:
            nonlocal last_s
            if time.monotonic() - last_s >= LINE_S:
                last_s = time.monotonic()
                tell(f"flowgpt: {told()}")
            return LINE_S

        yield line
        return
    is_wide = console.width >= WIDE
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=is_wide))
    columns = [BarColumn(), text] if is_wide else [text]
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=counts.rows)

        def bar() -> float:
            progress.update(task, total=counts.rows, completed=counts.done, description=told(), refresh=True)
            return REFRESH_S

        yield bar

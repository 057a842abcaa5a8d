"""`flowgpt embedded`: the embedded server as a program, for other programs to talk to."""

from __future__ import annotations

import math

import click

from .. import embedded
from . import streams

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class WithFaults(click.Command):
    """A command whose help ends with the table of faults."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Faults (NAME, or NAME:VALUE for another N)"):
            formatter.write_dl([(name, fault.words) for name, fault in embedded.FAULTS.items()])


@click.command("embedded", cls=WithFaults)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="address to listen on")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 is any free one")
@click.option("--pace", default=0.0, type=click.FloatRange(0), metavar="SECONDS", help="pause between two texts")
@click.option(
    "--responder",
    type=click.Choice(["mirror", "upstream"]),
    help="mirror says what it received; upstream asks a model server  [default: mirror, or upstream with --upstream]",
)
@click.option("--upstream", metavar="URL", help="an OpenAI-compatible server, as http://127.0.0.1:11434/v1")
@click.option("--upstream-model", metavar="ID", help="the model to ask there  [default: the one that is asked for]")
@click.option("--fault", metavar="NAME", help="play this fault in every answer")
@click.option("--until-stdin-closes", is_flag=True, help="end when standard input does; no hints")
def command(
    host: str,
    port: int,
    pace: float,
    responder: str | None,
    upstream: str | None,
    upstream_model: str | None,
    fault: str | None,
    until_stdin_closes: bool,
) -> None:
    """Run the embedded server: it speaks FlowGPT's protocol on this machine.

    The first line of output is its base URL.
    """
    if (responder == "upstream" or upstream_model) and not upstream:
        raise click.UsageError("--responder upstream and --upstream-model need --upstream URL")
    if responder == "mirror" and upstream:
        raise click.UsageError("--responder mirror does not ask --upstream URL")
    if not math.isfinite(pace):
        raise click.UsageError("--pace must be a number of seconds")
    answering = embedded.Upstream(upstream, upstream_model) if upstream else embedded.mirror

    def ready(base_url: str) -> None:
        streams.write(base_url + "\n")
        if not until_stdin_closes:
            streams.note(
                f"flowgpt: {'mirror' if upstream is None else upstream} answers here until Ctrl-C; try it with"
            )
            streams.note(f"hint: flowgpt --base-url {base_url} 'a question'")
        if host not in LOOPBACK:
            streams.note(f"flowgpt: warning: whoever reaches {host} can ask this server; it wants no key")

    embedded.run(
        answering, pace_s=pace, fault=fault, host=host, port=port, ready=ready, until_stdin_closes=until_stdin_closes
    )

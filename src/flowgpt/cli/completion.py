"""`flowgpt completion`: the script by which a shell asks this program what a word may become."""

from __future__ import annotations

import click

from . import streams

VARIABLE = "_FLOWGPT_COMPLETE"
"""Set by the script when the shell asks; program.py answers."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes a shell complete commands, options, models, templates and ids.

    \b
    bash:  echo 'eval "$(flowgpt completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(flowgpt completion zsh)"' >> ~/.zshrc  (after compinit)
    fish:  flowgpt completion fish > ~/.config/fish/completions/flowgpt.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    # ShellComplete's own: that of bash starts a shell to ask for its version.
    streams.write(ShellComplete.source(kind(root, {}, "flowgpt", VARIABLE)))

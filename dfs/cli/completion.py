"""`dfs completion`: the script that teaches a shell to complete dfs commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dfs.cli import output

_HOW = {
    "bash": 'eval "$(dfs completion bash)"        # in ~/.bashrc',
    "zsh": 'eval "$(dfs completion zsh)"         # in ~/.zshrc, after compinit',
    "fish": "dfs completion fish | source        # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(dfs completion bash)"        in ~/.bashrc
    zsh:  eval "$(dfs completion zsh)"         in ~/.zshrc, after compinit
    fish: dfs completion fish | source         in ~/.config/fish/config.fish
    """
    from dfs.cli.main import cli

    output.line(f"# {_HOW[shell]}")
    output.line(script(cli, shell))


def script(root: click.Command, shell: str) -> str:
    """The completion script of one shell for the program `dfs`."""
    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise click.ClickException(f"no completion for {shell}")
    completer = shell_class(root, {}, "dfs", "_DFS_COMPLETE")
    return completer.source_template % completer.source_vars()

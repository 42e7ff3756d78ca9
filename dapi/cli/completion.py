"""``dapi completion``: what a shell needs to complete the commands of ``dapi``."""

from __future__ import annotations

import click

from dapi.cli.errors import CliError
from dapi.cli.session import LocalCommand, Session

_VARIABLE = "_DAPI_COMPLETE"


class _PlainCommand(LocalCommand):
    common = ()


@click.command(
    cls=_PlainCommand,
    examples="""
    dapi completion bash > ~/.local/share/bash-completion/completions/dapi
    dapi completion zsh > ~/.zfunc/_dapi
    dapi completion fish > ~/.config/fish/completions/dapi.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that has a shell complete commands, options and node ids."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"there is no completion for {shell}")
    click.echo(found(context.find_root().command, {}, "dapi", _VARIABLE).source())


def complete_node_id(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of nodes that begin like this; none where no dapi answers."""
    try:
        nodes = Session().api.get("/nodes")
    except CliError:
        return []
    return [each["node"]["id"] for each in nodes if each["node"]["id"].startswith(incomplete)]

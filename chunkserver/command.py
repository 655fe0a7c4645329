"""`dfs chunkserver`: run one chunkserver. A wrong configuration is one line and exit code 2."""

from __future__ import annotations

import sys

import click


@click.group()
def chunkserver() -> None:
    """Run a chunkserver."""


@chunkserver.command()
@click.option("--config", "config_path", required=True, help="This chunkserver's TOML file.")
@click.option("--verbose", is_flag=True, help="Log debug lines too.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Else as the file says.")
def run(config_path: str, verbose: bool, log_format: str | None) -> None:
    """Run one chunkserver in the foreground until SIGTERM."""
    from chunkserver import server
    from dfs.config import Chunkserver, load
    from dfs.errors import Failure
    from dfs.process import EXIT_CONFIG, log_to_stderr, run_process
    from dfs.runtime.real import RealEnv

    try:
        config = load(Chunkserver, config_path)
    except Failure as error:
        print(f"dfs: {error.message}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    node = f"chunkserver-{config.id}"
    log_format = log_format or config.log_format
    log_to_stderr(node, verbose=verbose, log_format=log_format, limits=config.log)
    env = RealEnv(node, sync_delay_s=config.debug_sync_delay_ms / 1000)
    sys.exit(run_process(lambda stop: server.run(env, config, stop)))

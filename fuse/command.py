"""`dfs mount`, `dfs umount` and `dfs sync`.

`mount` checks what it can, forks, and waits until the child says through a pipe that the mount
answers; until then the child's standard error is the user's, so that a failure is one clear line.
Afterwards only its log file is left to it. `umount` asks the mount for its process, unmounts, and
waits for that process to end: by then everything is flushed.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from dfs.config import Client
    from dfs.mountinfo import Mounted
    from fuse.mounting import Place

EXIT_FAILED = 1
EXIT_CONFIG = 2
READY = b"ready"


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--config", "config_path", envvar="DFS_CONFIG", metavar="FILE", help="client.toml.")
@click.option("--foreground", is_flag=True, help="Stay, and log to standard error.")
@click.option(
    "--allow-other/--no-allow-other",
    default=None,
    help="Let other users in (the default as root).",
)
@click.option("--sync", is_flag=True, help="Every call that changes anything is durable at once.")
@click.option("--log-file", metavar="FILE", help="Where to log when in the background.")
@click.option("--verbose", is_flag=True, help="Log debug lines too.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Else as the file says.")
@click.option("--metrics-listen", metavar="ADDRESS", help="host:port, instead of the file's.")
def mount(
    directory: str,
    config_path: str | None,
    foreground: bool,
    allow_other: bool | None,
    sync: bool,
    log_file: str | None,
    verbose: bool,
    log_format: str | None,
    metrics_listen: str | None,
) -> None:
    """Mount the cluster at DIR.

    Returns once the mount answers. A mount that is there already is left as it is.
    """
    config = _load(config_path, log_format=log_format, metrics_listen=metrics_listen)
    place = _place(directory, config.cluster, allow_other, sync=sync)
    if _is_mounted(place):
        click.echo(f"{place.cluster} is mounted at {place.mountpoint} already")
        return
    if foreground:
        sys.exit(_serve(config, place, sys.stderr, verbose, lambda: None))
    log_path = log_file or _default_log_path(place.mountpoint)
    sys.exit(_start_in_background(config, place, log_path, verbose))


@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--lazy", is_flag=True, help="Out of sight now, ended when nothing uses it.")
@click.option("--force", is_flag=True, help="Abort a mount that hangs; what is unflushed is lost.")
def umount(directory: str, lazy: bool, force: bool) -> None:
    """Unmount DIR, and wait until everything is flushed and its process has ended."""
    from dfs.errors import Failure
    from fuse import mountpoints

    mounted = _mounted(directory)
    try:
        if force:
            mountpoints.abort(mounted)
        else:
            _unmount(mounted.mountpoint, lazy=lazy)
    except Failure as failure:
        if failure.errno == errno.EBUSY:
            _fail(f"{directory} is in use (`fuser -vm {directory}` tells by whom; or use --lazy)")
        _fail(failure.message)


@click.command()
@click.argument("directory", metavar="DIR")
def sync(directory: str) -> None:
    """Make everything durable that was written through the mount at DIR.

    sync(1) cannot: the kernel does not tell the mount of it.
    """
    lost = _sync(_mounted(directory).mountpoint)
    if lost is not None:
        _fail(f"{directory}: {lost}")


def _mounted(directory: str) -> Mounted:
    from fuse import mountpoints

    mounted = mountpoints.mounted_at(mountpoints.resolved(directory))
    if mounted is None or mounted.kind != mountpoints.FILE_SYSTEM_TYPE:
        _fail(f"{directory}: no dfs is mounted here")
    return mounted


def _unmount(mountpoint: str, *, lazy: bool) -> None:
    from fuse import mountpoints

    about = mountpoints.describe(mountpoint)
    process = _watch_process(about["pid"]) if about else None
    lost = None if about is None or lazy else _sync(mountpoint)
    mountpoints.unmount(mountpoint, lazy=lazy or about is None)
    if process is not None and not lazy:
        select.select([process], [], [])
    if lost is not None:
        _fail(f"{mountpoint}: unmounted, but {lost}")


def _sync(mountpoint: str) -> str | None:
    """What is to be said when not everything could be made durable.

    The mount does this once more at its end, but has nobody to tell then.
    """
    from fuse import mountpoints

    try:
        mountpoints.sync_all(mountpoint)
    except OSError as error:
        return f"not everything is durable: {error.strerror}; see the mount's log"
    return None


def _load(config_path: str | None, **instead: str | None) -> Client:
    """The configuration, with what the command line says in place of the file."""
    import dataclasses

    from dfs.config import Client, check_address, load
    from dfs.errors import Failure

    if config_path is None:
        _fail("which cluster? Name it by --config FILE or DFS_CONFIG", EXIT_CONFIG)
    said: dict[str, Any] = {key: value for key, value in instead.items() if value is not None}
    try:
        if said.get("metrics_listen"):
            check_address(said["metrics_listen"], "--metrics-listen")
        return dataclasses.replace(load(Client, config_path), **said)
    except Failure as failure:
        _fail(failure.message, EXIT_CONFIG)


def _place(directory: str, cluster: str, allow_other: bool | None, *, sync: bool) -> Place:
    from fuse import mountpoints
    from fuse.mounting import Place

    everybody = os.geteuid() == 0 if allow_other is None else allow_other
    return Place(mountpoints.resolved(directory), cluster, everybody, sync)


def _is_mounted(place: Place) -> bool:
    """Whether this very cluster is mounted there and alive; refuses when another one is."""
    from fuse import mountpoints

    mounted = mountpoints.mounted_at(place.mountpoint)
    if mounted is None or mounted.kind != mountpoints.FILE_SYSTEM_TYPE:
        return False
    about = mountpoints.describe(place.mountpoint)
    if about is not None and about["cluster"] != place.cluster:
        _fail(f"{place.mountpoint}: the cluster {about['cluster']} is mounted here already")
    if about is not None and bool(about.get("sync")) != place.sync:
        _fail(f"{place.mountpoint}: mounted already, {'without' if place.sync else 'with'} --sync")
    return about is not None


def _serve(
    config: Client, place: Place, log_to: IO[str], verbose: bool, on_ready: Callable[[], None]
) -> int:
    """Be the mount's process; its exit code."""
    import contextlib

    from dfs.process import log_to_stderr, run_process
    from dfs.runtime.real import RealEnv
    from fuse import mounting

    with contextlib.redirect_stderr(log_to):
        log_to_stderr("mount", verbose=verbose, log_format=config.log_format, limits=config.log)
    logging.getLogger("pyfuse3").setLevel(logging.INFO)  # it tells of every task it starts
    env = RealEnv("mount")
    return run_process(lambda stop: mounting.run(env, config, place, stop, on_ready))


def _start_in_background(config: Client, place: Place, log_path: str, verbose: bool) -> int:
    """Start the mount's process and wait until it is ready or has failed; the exit code."""
    log_file = _open_log(log_path)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _be_the_process(config, place, log_file, verbose, send)
    os.close(send)
    with os.fdopen(receive, "rb") as answer:
        if answer.read() == READY:
            return 0
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        click.echo(f"dfs: the mount was ended by signal {-code}; see {log_path}", err=True)
    return code if code > 0 else EXIT_FAILED


def _be_the_process(
    config: Client, place: Place, log_file: IO[str], verbose: bool, ready: int
) -> NoReturn:
    def on_ready() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for number, target in ((0, null), (1, null), (2, log_file.fileno())):
            os.dup2(target, number)
        os.close(null)
        os.write(ready, READY)
        os.close(ready)

    code = EXIT_FAILED
    try:
        os.setsid()
        os.chdir("/")
        code = _serve(config, place, log_file, verbose, on_ready)
    except BaseException:
        import traceback

        traceback.print_exc(file=log_file)
        raise
    finally:
        # Not sys.exit: the parent's callers, and what they registered, are not this process's.
        logging.shutdown()
        log_file.flush()
        os._exit(code)


def _open_log(path: str) -> IO[str]:
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        return open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        _fail(f"log file {path}: {error.strerror}", EXIT_CONFIG)


def _default_log_path(mountpoint: str) -> str:
    name = "mount" + mountpoint.replace("/", "-") + ".log"
    if os.geteuid() == 0:
        return os.path.join("/var/log/dfs", name)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "dfs", name)


def _watch_process(pid: str | int) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it is not to be seen."""
    try:
        return os.pidfd_open(int(pid))
    except ProcessLookupError:
        return None


def _fail(text: str, code: int = EXIT_FAILED) -> NoReturn:
    click.echo(f"dfs: {text}", err=True)
    sys.exit(code)

"""Opening a master's state: everything that may be wrong with it is told before anything is served.

What LMDB cannot recover from ends the start with one line that says what is wrong, in which file,
and what to do: a file that is cut short, is no store, is of an unknown format, has pages that are
not what they should be (found by reading the whole file, up to `verify_below_bytes`), or a disk
that lets it be neither read nor written. Damage met later, and a disk that refuses a write, end the
process the same way: nothing is acknowledged that is not on disk, so nothing acknowledged is lost.
"""

from __future__ import annotations

import errno
from functools import partial

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.runtime import Env
from master.raft.membership import check_format
from master.store import Store

STATE = "state.mdb"


def open_store(env: Env, config: Master) -> Store:
    """Open the state of this master. Raises Failure: DISK when damaged, CONFIG when in use."""
    path = f"{config.data_dir}/{STATE}"
    lock_directory(env, config)
    try:
        verify_if_small(env, config, path)
        store = Store.open(env, path, config.raft)
        check_format(store)
    except Failure as failure:
        raise Failure(failure.code, f"{failure.message}; {mending(config)}") from failure
    except OSError as error:
        raise _unusable(config, error) from error
    store.on_damage = partial(_end_damaged, env, config)
    return store


def lock_directory(env: Env, config: Master) -> None:
    """Make the data directory this process's, until it ends. Raises Failure: CONFIG, DISK."""
    try:
        env.disk.make_directory(config.data_dir)
        env.disk.lock(f"{config.data_dir}/lock")
    except OSError as error:
        if error.errno == errno.EAGAIN:
            text = f"{config.data_dir} is in use by another process: stop master {config.id} first"
            raise Failure(Code.CONFIG, text, errno=errno.EAGAIN) from None
        raise _unusable(config, error) from error


def verify_if_small(env: Env, config: Master, path: str) -> None:
    """Read the whole file, if it is there and that takes little. Raises Failure DISK, OSError."""
    if not env.disk.exists(path):
        return
    file = env.disk.open(path)
    size_bytes = file.size()
    file.close()
    if size_bytes <= config.raft.verify_below_bytes:
        env.disk.verify_key_value(path)


def mending(config: Master) -> str:
    """What an operator does about a state that is lost."""
    return (
        f"master {config.id} does not serve. Set {config.data_dir} aside; if a majority of the "
        f"other masters is well, `dfs master remove {config.id}` and add this one under a new id; "
        "otherwise load a dump: docs/operations-metadata.md"
    )


def _unusable(config: Master, error: OSError) -> Failure:
    text = f"master {config.id} cannot use {config.data_dir}: {error.strerror or error}"
    if error.filename:
        text += f" ({error.filename})"
    hint = "make it writable and start again; nothing is lost"
    return Failure(Code.DISK, f"{text}; {hint}", errno=error.errno or 0)


def _end_damaged(env: Env, config: Master, failure: Failure) -> None:
    env.fatal(f"{failure.message}; {mending(config)}")

"""`dfs local up`: start what does not run, mount what is not mounted, wait until all is well.

Idempotent: run again after anything was killed, it brings exactly that back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dfs import config
from dfs.errors import Code, Failure
from dfs.local import configure, mounts, processes, readiness, state
from dfs.local.layout import Member, Root
from dfs.local.state import HOST, State
from dfs.rpc.retry import Backoff
from dfs.runtime import Env

# Below the range from which the kernel takes ports for outgoing connections.
_PORTS_FROM, _PORTS_TO, _PORTS_STEP = 20_000, 32_000, state.PORTS
_PORT_TRIES = 40
_ANSWER_S = 5.0  # a mount that takes longer for statfs is taken for hung
_END_S = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What the user asked for; None: as it was, or the default at the first start."""

    masters: int | None = None
    chunkservers: int | None = None
    base_port: int | None = None
    mount: str | None = None  # an absolute path without symlinks
    timeout_s: float = 60.0


async def up(env: Env, root: Root, wish: Wish, tell: Tell) -> State:
    """Bring the cluster in ROOT up. Raises Failure, its sentence telling what to mend."""
    os.makedirs(root.path, mode=0o700, exist_ok=True)
    with state.locked(root):
        wanted = await settle(env, root, wish)
        member = wanted.mount_at(wish.mount) if wish.mount else None
        configure.write_all(env, root, wanted)
        _check_mount_points(root, wanted, member)
        state.save(root, wanted)
        await _start_servers(env, root, wanted, wish.timeout_s, tell)
        for mount in wanted.mount_members():
            await _mount(env, root, wanted, mount, wish.timeout_s, tell)
    return wanted


async def settle(env: Env, root: Root, wish: Wish) -> State:
    """The state to bring about, from what is remembered and what is wished."""
    known = state.load(root)
    if known is None:
        count, servers = wish.masters or 3, wish.chunkservers or 3
        made = State("local", wish.base_port or 0, count, servers)
        if wish.base_port is None:
            await _choose_ports(env, made)
        else:
            made.take_ports(wish.base_port)
        return made
    if wish.masters not in (None, known.masters):
        raise _unlike(root, f"{known.masters} masters")
    if wish.base_port not in (None, known.base_port):
        raise _unlike(root, f"base port {known.base_port}")
    if wish.chunkservers is not None:
        if wish.chunkservers < known.chunkservers:
            raise _unlike(root, f"{known.chunkservers} chunkservers (more can be added)")
        known.chunkservers = wish.chunkservers
    return known


def _unlike(root: Root, what: str) -> Failure:
    text = f"the cluster in {root.path} has {what}: use another --root, or `dfs local down --purge`"
    return Failure(Code.CONFIG, text)


async def _choose_ports(env: Env, wanted: State) -> None:
    """Take ports from which on all that the cluster needs are free."""
    choices = list(range(_PORTS_FROM, _PORTS_TO, _PORTS_STEP))
    for base in env.random.shuffled(choices)[:_PORT_TRIES]:
        wanted.take_ports(base)
        if await _all_free(env, wanted.ports()):
            return
    raise Failure(Code.CONFIG, f"no free ports between {_PORTS_FROM} and {_PORTS_TO}: --base-port")


async def _all_free(env: Env, ports: Sequence[int]) -> bool:
    for port in ports:
        try:
            listener = await env.network.listen(f"{HOST}:{port}")
        except OSError:
            return False
        listener.close()
    return True


def _check_mount_points(root: Root, wanted: State, member: Member | None) -> None:
    """Before anything is started: is the directory asked for fit to be mounted at?"""
    if member is None or processes.running(root, member):
        return
    directory = wanted.mounts[member.id]
    found = mounts.mounted_at(directory)
    if found is None:
        mounts.prepare_directory(directory)
    elif not found.kind.startswith("fuse"):
        text = f"cannot mount at {directory}: it is a mount point of {found.kind} already"
        raise Failure(Code.CONFIG, text)


async def _start_servers(env: Env, root: Root, wanted: State, timeout_s: float, tell: Tell) -> None:
    """Start the masters and chunkservers that do not run; return when all work together."""
    missing = [m for m in wanted.members() if processes.running(root, m) is None]
    if missing:
        tell(f"starting {', '.join(member.name for member in missing)}")
    children = {
        member: processes.start(root, member, [member.role, "run", "--config", root.config(member)])
        for member in missing
    }
    cluster = readiness.Cluster(env, config.load(config.Client, root.client_config), wanted)
    if not await readiness.until(env, root, children, cluster.ready, timeout_s):
        text = f"not ready after {timeout_s:.0f} s: {cluster.lacking}; see {root.logs}"
        raise Failure(Code.TIMEOUT, text)


async def _mount(
    env: Env, root: Root, wanted: State, member: Member, timeout_s: float, tell: Tell
) -> None:
    """Mount at its directory unless that mount is there and answers."""
    directory = wanted.mounts[member.id]
    process = processes.running(root, member)
    is_mounted = mounts.mounted_at(directory) is not None
    answering = is_mounted and await mounts.answers(env, directory, _ANSWER_S)
    if answering and process is not None:
        return
    if answering:
        text = f"something else is mounted at {directory}; unmount it or choose another directory"
        raise Failure(Code.CONFIG, text)
    if process is not None:
        tell(f"{member.name} does not answer, starting it anew")
        await processes.end(env, process, _END_S)
    if mounts.mounted_at(directory) is not None:
        await mounts.unmount(env, directory, _END_S, lazy=True)
    mounts.prepare_directory(directory)
    await _start_mount(env, root, wanted, member, timeout_s, tell)


async def _start_mount(
    env: Env, root: Root, wanted: State, member: Member, timeout_s: float, tell: Tell
) -> None:
    directory, metrics = wanted.mounts[member.id], wanted.metrics_address(member)
    tell(f"mounting at {directory}")
    arguments = ["mount", directory, "--config", root.client_config, "--foreground"]
    if metrics:
        arguments += ["--metrics-listen", metrics]
    children = {member: processes.start(root, member, arguments)}
    settings = config.load(config.Client, root.client_config)

    async def ready() -> None:
        backoff = Backoff(env, settings.rpc)
        while mounts.mounted_at(directory) is None:
            await backoff.wait()
        while not await mounts.answers(env, directory, _ANSWER_S):
            await backoff.wait()

    if not await readiness.until(env, root, children, ready, timeout_s):
        text = f"{directory} does not answer after {timeout_s:.0f} s; see {root.log(member)}"
        raise Failure(Code.TIMEOUT, text)

"""What `dfs master recover` asks and says around `master.refounding`.

It must not be used while another master of the group is alive: that one could go on with the old
group, or is the better one to go on with. So each of them is dialled first.
"""

from __future__ import annotations

from dfs.config import Master
from dfs.errors import Code, Failure
from dfs.runtime import Env
from master.opening import STATE, lock_directory
from master.raft.membership import stored_members
from master.refounding import Founded
from master.store import Store

QUESTION = (
    "Master {id} becomes a cluster of its own. What the other masters had committed without it is "
    "lost for ever, and they can never come back with what they have. Go on?"
)


async def check_alone(env: Env, config: Master) -> None:
    """Claim the directory. Raises Failure(CONFIG) when another master can be reached."""
    for id, address in _others(env, config):
        if await _answers(env, config, address):
            text = (
                f"master {id} at {address} is alive. If a majority can be started, start it: "
                "nothing is lost then. Otherwise stop that master, and recover the one of them "
                "that has applied most (`dfs status`)"
            )
            raise Failure(Code.CONFIG, text)


def _others(env: Env, config: Master) -> list[tuple[int, str]]:
    lock_directory(env, config)
    path = f"{config.data_dir}/{STATE}"
    if not env.disk.exists(path):
        raise Failure(Code.CONFIG, f"{config.data_dir} holds no master's state")
    env.disk.verify_key_value(path)
    store = Store.open(env, path, config.raft)
    try:
        members = [m for m in stored_members(store) if m.present and m.id != config.id]
        return [(member.id, member.address) for member in members]
    finally:
        store.close()


async def _answers(env: Env, config: Master, address: str) -> bool:
    """Whether anything takes a connection there; a process that is only stopped does, too."""
    with env.clock.move_on_after(config.rpc.connect_timeout_s):
        try:
            (await env.network.connect(address)).close()
        except OSError:
            return False  # refused, or no way there
        return True
    return False


def report(config_path: str, founded: Founded) -> str:
    """What was done, and what comes next."""
    return (
        f"founded anew with the state at {founded.applied} and {founded.entries} entries of the "
        f"log beyond it: {founded.inodes} inodes, {founded.chunks} chunks\n"
        f"the old state is kept as {founded.replaced}\n"
        "next:\n"
        f"  dfs master run --config {config_path}   start it; the chunkservers come by themselves\n"
        "  dfs meta recovered                    see what they have, then end the recovery\n"
        "  dfs master add ID ADDRESS             more masters, each on an empty data directory"
    )

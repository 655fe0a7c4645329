"""Asking the chunkservers what they have: page by page, or about single chunks.

Over connections of its own to their addresses. A server that does not answer is asked again once,
and is silent for the rest of that listing if it fails then, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import trio

from dfs.config import MasterLimits
from dfs.errors import Failure
from dfs.messages.chunks import ListedReplica, ListReplicas, ReplicaPage
from dfs.rpc import Pool
from dfs.runtime import Env

log = logging.getLogger(__name__)

ATTEMPTS = 2


class Asking:
    """Asks chunkservers by id; `addresses` are those of the live ones."""

    def __init__(self, env: Env, pool: Pool, limits: MasterLimits) -> None:
        self._env, self._pool, self._limits = env, pool, limits

    async def page(self, address: str, after: int, *, verify: bool) -> ReplicaPage:
        """The next page. Raises Failure."""
        if verify:  # a reading may take long: few at a time, so that none has to be repeated
            return await self._ask(address, ListReplicas(after, 1, verify=True), verify=True)
        message = ListReplicas(after, self._limits.check_page)
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._ask(address, message, verify=False)
            except Failure as error:
                log.info("%s: %s lists nothing: %s", self._env.name, address, error.message)
                await self._env.clock.sleep(self._limits.check_confirm_s)
        return await self._ask(address, message, verify=False)

    async def _ask(self, address: str, message: ListReplicas, *, verify: bool) -> ReplicaPage:
        limits = self._limits
        timeout_s = limits.check_verify_timeout_s if verify else limits.check_timeout_s
        received = await self._pool.call(address, message, timeout_s=timeout_s)
        page: ReplicaPage = received.message
        return page

    async def about(
        self, handles: Sequence[int], addresses: Mapping[int, str], *, verify: bool
    ) -> tuple[dict[int, dict[int, ListedReplica]], frozenset[int]]:
        """(handle -> server -> its replica, who answered for all), all servers at a time."""
        found: dict[int, dict[int, ListedReplica]] = {handle: {} for handle in handles}
        answered: dict[int, None] = {}

        async def ask(server: int, address: str) -> None:
            try:
                for handle in handles:
                    message = ListReplicas(handle - 1, 1, verify, handle)
                    page = await self._ask(address, message, verify=verify)
                    for replica in page.replicas:
                        found[replica.handle][server] = replica
            except Failure as error:
                log.info("%s: %s does not answer: %s", self._env.name, address, error.message)
            else:
                answered[server] = None

        async with trio.open_nursery() as nursery:
            for server, address in sorted(addresses.items()):
                nursery.start_soon(ask, server, address)
        return found, frozenset(answered)

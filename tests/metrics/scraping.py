"""Asking a node as Prometheus does, on either world's network, and reading the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dfs.runtime import Env
from dfs.runtime.network import send_all
from tests.rpc.stage import read_to_end


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(env: Env, address: str, *data: bytes) -> bytes:
    """All that comes back for these bytes."""
    stream = await env.network.connect(address)
    try:
        await send_all(stream, data)
        return await read_to_end(stream)
    finally:
        stream.close()


async def get(env: Env, address: str, path: str, method: str = "GET") -> Answered:
    request = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n"
    head, _, body = (await ask(env, address, request.encode())).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    return Answered(int(status), dict(line.split(": ", 1) for line in lines), body)


class Scrape:
    """What /metrics told."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self._samples, f"{key} is told twice"
                self._samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """One sample; KeyError when there is none."""
        return self._samples[name, frozenset(labels.items())]

    def has(self, name: str, **labels: str) -> bool:
        return (name, frozenset(labels.items())) in self._samples

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (each, _), value in self._samples.items() if each == name)

    def names(self) -> list[str]:
        """Every metric told of, those without samples too, as operators write them."""
        lines = [line.split() for line in self.text.splitlines() if line.startswith("# TYPE ")]
        assert len({line[2] for line in lines}) == len(lines), "two collectors tell the same metric"
        return [line[2] for line in lines]


async def scrape(env: Env, address: str) -> Scrape:
    answered = await get(env, address, "/metrics")
    assert answered.status == 200
    assert answered.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return Scrape(answered.body.decode())

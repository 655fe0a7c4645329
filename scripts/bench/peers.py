"""Benchmark of file systems as programs see them: ours, MooseFS, the local one, in one run.

    peers.py [--mib 1024] [--files 2000] [--large-directory 50000] [--runs 1] NAME=DIRECTORY ...
    peers.py --with dfs,moosefs,local [--work DIR]      sets them up itself, and takes them down

`--with` starts a fresh `dfs local` cluster and runs PEERS_DIR/moosefs.sh (see --peers-dir), each
mounted while it is measured and stopped before the next, because they would share the machine's
cores. Otherwise directories that are mounted already are measured as they are.

Every workload works in a directory of its own, which it removes. Numbers are of one process and one
thread; reads come after the page cache of the mount was dropped where that is permitted. The table
gives medians of the runs. A trailing column `500 vs N` is the cost per file in a directory of N
entries divided by that in one of 500: it must stay near one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

BLOCK_BYTES = 1 << 20
SMALL_DIRECTORY = 500
STATS = 2000


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    mib: int
    files: int
    large_directory: int


Results = dict[str, float]


def sequential(base: Path, sizes: Sizes) -> Results:
    """One large file written (with fsync and close) and read back. MB/s (10**6 bytes)."""
    path, block = base / "sequential", os.urandom(BLOCK_BYTES)
    began = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(sizes.mib):
            file.write(block)
        os.fsync(file.fileno())
    written_s = time.perf_counter() - began
    drop_caches()
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(BLOCK_BYTES):
            pass
    read_s = time.perf_counter() - began
    path.unlink()
    megabytes = sizes.mib * BLOCK_BYTES / 1e6
    return {"write MB/s": megabytes / written_s, "read MB/s": megabytes / read_s}


def small_files(base: Path, sizes: Sizes) -> Results:
    """Files of 4 KiB created in directories of 100, and their attributes asked for one by one."""
    data = os.urandom(4096)
    paths = [base / str(n // 100) / str(n) for n in range(sizes.files)]
    for directory in sorted({path.parent for path in paths}):
        directory.mkdir(parents=True)
    began = time.perf_counter()
    for path in paths:
        path.write_bytes(data)
    created_s = time.perf_counter() - began
    drop_caches()
    latencies_s = [timed(partial(os.stat, path)) for path in paths[:STATS]]
    return {
        "create 4K /s": len(paths) / created_s,
        "stat p50 µs": statistics.median(latencies_s) * 1e6,
        "stat p99 µs": percentile(latencies_s, 0.99) * 1e6,
    }


def synced_writes(base: Path, _sizes: Sizes) -> Results:
    """4 KiB appended and synced, over and over."""
    data, latencies_s = os.urandom(4096), []
    with open(base / "synced", "wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(data)
            os.fsync(file.fileno())
            latencies_s.append(time.perf_counter() - began)
    return {
        "fsync p50 ms": statistics.median(latencies_s) * 1e3,
        "fsync p99 ms": percentile(latencies_s, 0.99) * 1e3,
    }


def directory_growth(base: Path, sizes: Sizes) -> Results:
    """The cost per empty file in a directory of 500 and in a large one: made, listed, removed."""
    small = directory_costs(base / "small", SMALL_DIRECTORY)
    large = directory_costs(base / "large", sizes.large_directory)
    against = f"{sizes.large_directory} vs {SMALL_DIRECTORY}"
    made = {f"{verb}/s ({sizes.large_directory} in one)": 1 / large[verb] for verb in large}
    return made | {f"{verb} cost, {against}": large[verb] / small[verb] for verb in large}


def directory_costs(directory: Path, count: int) -> Results:
    """Seconds per file of each verb."""
    directory.mkdir()
    names = [f"{directory}/{n:06d}" for n in range(count)]
    costs_s = {
        "create": timed(partial(create_all, names)),
        "list": timed(partial(list_with_attributes, directory)),
        "unlink": timed(partial(unlink_all, names)),
    }
    directory.rmdir()
    return {verb: cost_s / count for verb, cost_s in costs_s.items()}


def create_all(names: list[str]) -> None:
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def list_with_attributes(directory: Path) -> None:
    for entry in os.scandir(directory):
        entry.stat()


def unlink_all(names: list[str]) -> None:
    for name in names:
        os.unlink(name)


WORKLOADS: tuple[Callable[[Path, Sizes], Results], ...] = (
    sequential,
    small_files,
    synced_writes,
    directory_growth,
)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentile(values: list[float], fraction: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * fraction))]


def drop_caches() -> None:
    """Forget clean pages, names and attributes; without the right to, caches stay warm."""
    with contextlib.suppress(PermissionError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def measure(directory: Path, sizes: Sizes, runs: int) -> Results:
    """The medians of all workloads in one directory."""
    found: dict[str, list[float]] = {}
    for number in range(runs):
        for workload in WORKLOADS:
            base = directory / f"bench-{os.getpid()}-{number}"
            base.mkdir()
            try:
                for what, value in workload(base, sizes).items():
                    found.setdefault(what, []).append(value)
            finally:
                shutil.rmtree(base)
            print(f"  {directory}: {workload.__name__} done", file=sys.stderr, flush=True)
    return {what: statistics.median(values) for what, values in found.items()}


@contextlib.contextmanager
def dfs(work: Path, _peers: Path) -> Iterator[Path]:
    """A fresh cluster of three masters and three chunkservers."""
    command = [sys.executable, "-m", "dfs.cli.main", "local"]
    root, mount = f"--root={work}/dfs", work / "dfs-mount"
    subprocess.run([*command, "up", root, f"--mount={mount}"], check=True)
    try:
        yield mount
    finally:
        subprocess.run([*command, "down", root, "--force", "--purge", "--yes"], check=True)


def by_script(name: str) -> Callable[[Path, Path], contextlib.AbstractContextManager[Path]]:
    """A peer that PEERS_DIR/NAME.sh brings up and down."""

    @contextlib.contextmanager
    def peer(work: Path, peers: Path) -> Iterator[Path]:
        script, mount = peers / f"{name}.sh", work / f"{name}-mount"
        environment = {**os.environ, "PEER_STATE": str(work / name)}
        subprocess.run([script, "up", mount], check=True, env=environment)
        try:
            yield mount
        finally:
            subprocess.run([script, "down", mount], check=True, env=environment)

    return peer


@contextlib.contextmanager
def local(work: Path, _peers: Path) -> Iterator[Path]:
    """The file system that the others keep their data on."""
    directory = work / "local"
    directory.mkdir()
    yield directory


CONTESTANTS = {
    "dfs": dfs,
    "moosefs": by_script("moosefs"),
    "glusterfs": by_script("glusterfs"),
    "local": local,
}


def table(results: dict[str, Results]) -> str:
    """Markdown, a row for each figure."""
    names = list(results)
    rows = [["workload", *names], ["---", *("---:" for _ in names)]]
    for what in results[names[0]]:
        rows.append([what, *(shown(results[name][what]) for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shown(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directories", nargs="*", metavar="NAME=DIRECTORY")
    parser.add_argument("--with", dest="contestants", default="", metavar="NAMES")
    parser.add_argument("--peers-dir", default=os.environ.get("PEERS_DIR", "."), type=Path)
    parser.add_argument("--work", type=Path, help="where --with keeps its data")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--large-directory", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    sizes = Sizes(options.mib, options.files, options.large_directory)
    results: dict[str, Results] = {}
    for argument in options.directories:
        name, _, directory = argument.rpartition("=")
        results[name or directory] = measure(Path(directory), sizes, options.runs)
    if options.work:
        os.makedirs(options.work, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dfs-bench-", dir=options.work) as work:
        for name in filter(None, options.contestants.split(",")):
            with CONTESTANTS[name](Path(work), options.peers_dir.resolve()) as directory:
                results[name] = measure(directory, sizes, options.runs)
    if not results:
        parser.error("nothing to measure: give NAME=DIRECTORY or --with")
    print(table(results))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

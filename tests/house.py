"""The house rules, as functions from a parsed module to its violations.

Each rule takes a `Module` and yields `Violation`s; `tests/test_house.py` runs them over the whole
tree and shows for each that it catches what it is for. Exceptions stand in `ALLOWED`, by path and
name, each with its reason: there is no way to silence a rule from within the code.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dfs", "master", "chunkserver", "fuse")
FUNCTION_LINES = 70
MODULE_LINES = 500
TEST_MODULE_LINES = 700

# Who may import whom, beside itself.
MAY_IMPORT = {"dfs": (), "master": ("dfs",), "chunkserver": ("dfs",), "fuse": ("dfs",)}

SEAM = "dfs/runtime/"
# What reaches around the seams: modules, functions and builtins, by their dotted names.
BEHIND_THE_SEAMS = (
    "asyncio",
    "builtins.open",
    "concurrent.futures",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "io.open",
    "lmdb",
    "multiprocessing",
    "os._exit",
    "os.fdatasync",
    "os.fdopen",
    "os.fsync",
    "os.getrandom",
    "os.listdir",
    "os.makedirs",
    "os.mkdir",
    "os.open",
    "os.pread",
    "os.preadv",
    "os.pwrite",
    "os.pwritev",
    "os.remove",
    "os.rename",
    "os.replace",
    "os.scandir",
    "os.statvfs",
    "os.truncate",
    "os.unlink",
    "os.urandom",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "sys.exit",
    "tempfile",
    "threading",
    "time",
    "trio.SocketListener",
    "trio.SocketStream",
    "trio.current_time",
    "trio.fail_after",
    "trio.fail_at",
    "trio.from_thread",
    "trio.move_on_after",
    "trio.move_on_at",
    "trio.open_file",
    "trio.open_process",
    "trio.open_tcp_listeners",
    "trio.open_tcp_stream",
    "trio.open_unix_socket",
    "trio.run_process",
    "trio.serve_listeners",
    "trio.serve_tcp",
    "trio.sleep",
    "trio.sleep_until",
    "trio.socket",
    "trio.to_thread",
    "uuid.uuid1",
    "uuid.uuid4",
)
_PATH_METHODS = frozenset({"read_text", "write_text", "read_bytes", "write_bytes"})

# (path prefix, name) -> why. The name "" stands for all.
ALLOWED: dict[tuple[str, str], str] = {
    ("dfs/config.py", "builtins.open"): "reads the configuration, before any Env exists",
    ("dfs/cli/", ""): "the user's own files, terminal and processes",
    ("dfs/local", ""): "starts, watches and ends the processes of a cluster on this machine",
    ("master/command.py", "sys.exit"): "the process's exit code",
    ("chunkserver/command.py", "sys.exit"): "the process's exit code",
    ("fuse/command.py", ""): "makes the mount's own process: fork, log file, exit code",
    ("fuse/mounting.py", "os.listdir"): "looks at the mountpoint and at /proc/self/fd",
    ("dfs/mountinfo.py", "builtins.open"): "the kernel's mount table",
    ("fuse/mountpoints.py", ""): "the kernel's files in /sys, fusermount",
    ("dfs/rpc/codec.py", "registry"): "message classes register themselves when defined",
}

_MUTABLE_MAKERS = frozenset(
    {"list", "dict", "set", "bytearray", "deque", "defaultdict", "OrderedDict", "Counter"}
)
_MUTATORS = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
    }
)
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Violation:
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Module:
    """A parsed source file; `path` is relative to the repository's top."""

    path: str
    source: str
    tree: ast.Module = field(repr=False)

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")

    def at(self, node: ast.AST, text: str) -> Violation:
        return Violation(self.path, getattr(node, "lineno", 1), text)

    def aliases(self) -> dict[str, str]:
        """Local name -> dotted name, of everything imported anywhere in the module."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    names[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return names


Rule = Callable[[Module], Iterator[Violation]]


def parse(source: str, path: str = "dfs/example.py") -> Module:
    return Module(path, source, ast.parse(source))


def allowed(path: str, name: str) -> bool:
    return any(
        path.startswith(prefix) and (not entry or name == entry) for (prefix, entry) in ALLOWED
    )


def tree_modules(*tops: str) -> list[Module]:
    """Every Python file of these top-level directories."""
    paths = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
    return [parse(p.read_text(), p.relative_to(ROOT).as_posix()) for p in paths]


# -- rules


def import_direction(module: Module) -> Iterator[Violation]:
    """fuse, master and chunkserver import dfs; nobody imports sideways or back."""
    home = module.path.split("/")[0]
    if home not in MAY_IMPORT:
        return
    for node in ast.walk(module.tree):
        for name in _imported(node):
            top = name.split(".")[0]
            if top in MAY_IMPORT and top != home and top not in MAY_IMPORT[home]:
                yield module.at(node, f"{home} must not import {name}")
            if top == "tests":
                yield module.at(node, f"{home} must not import the tests")


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def function_length(module: Module) -> Iterator[Violation]:
    for node in ast.walk(module.tree):
        if isinstance(node, _FUNCTIONS):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield module.at(node, f"{node.name} has {lines} lines, over {FUNCTION_LINES}")


def module_length(module: Module) -> Iterator[Violation]:
    limit = TEST_MODULE_LINES if module.is_test else MODULE_LINES
    lines = len(module.source.splitlines())
    if lines > limit:
        yield Violation(module.path, limit, f"the module has {lines} lines, over {limit}")


def module_docstring(module: Module) -> Iterator[Violation]:
    if module.tree.body and not ast.get_docstring(module.tree):
        yield Violation(module.path, 1, "the module has no docstring")


def seams(module: Module) -> Iterator[Violation]:
    """Clock, network, disk, random and threads are reached through `Env` only."""
    if module.path.startswith(SEAM):
        return
    aliases = module.aliases()
    for node in ast.walk(module.tree):
        for name in _reached(node, aliases):
            if not allowed(module.path, name):
                yield module.at(node, f"{name} reaches around the seams of dfs/runtime")


def _reached(node: ast.AST, aliases: dict[str, str]) -> Iterator[str]:
    """The forbidden names that one node imports or uses."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _forbidden(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield from _forbidden(f"{node.module}.{alias.name}")
    elif isinstance(node, ast.Attribute):
        yield from _forbidden(_dotted(node, aliases))
    elif isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Name) and function.id == "open" and "open" not in aliases:
            yield "builtins.open"
        if isinstance(function, ast.Attribute) and function.attr in _PATH_METHODS:
            yield f"pathlib.Path.{function.attr}"


def _forbidden(name: str) -> Iterator[str]:
    for entry in BEHIND_THE_SEAMS:
        if name == entry or name.startswith(entry + "."):
            yield entry


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """The dotted name of an attribute chain on an import, "" for anything else."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, "")
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, aliases)
        return f"{base}.{node.attr}" if base else ""
    return ""


def mutable_globals(module: Module) -> Iterator[Violation]:
    """Several nodes share a process: what a function changes must not hang on the module."""
    if allowed(module.path, "registry"):
        return
    names = _mutable_names(module.tree)
    for function in ast.walk(module.tree):
        if not isinstance(function, _FUNCTIONS):
            continue
        local = _bound_in(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield module.at(node, f"{function.name} rebinds the global {', '.join(node.names)}")
            name = _mutated(node)
            if name in names and name not in local:
                yield module.at(node, f"{function.name} changes the module's {name}")


def _mutable_names(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign) and _makes_mutable(node.value):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value and _makes_mutable(node.value):
            targets = [node.target]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def _makes_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        function = value.func
        name = function.attr if isinstance(function, ast.Attribute) else ""
        name = function.id if isinstance(function, ast.Name) else name
        return name in _MUTABLE_MAKERS
    displays = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(value, displays)


def _mutated(node: ast.AST) -> str:
    """The name that this node changes in place, or ""."""
    target: ast.expr | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        target = node.func.value if node.func.attr in _MUTATORS else None
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
        target = node.value
    return target.id if isinstance(target, ast.Name) else ""


def _bound_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return names


def set_order(module: Module) -> Iterator[Violation]:
    """The order of a set depends on the process's hash seed: sort it first."""
    known = _set_names(module.tree)
    for node in ast.walk(module.tree):
        iterated: list[ast.expr] = []
        if isinstance(node, (ast.For, ast.AsyncFor)):
            iterated = [node.iter]
        elif isinstance(node, (ast.ListComp, ast.DictComp)):
            iterated = [generator.iter for generator in node.generators]
        elif isinstance(node, ast.Call) and _called(node) in ("list", "tuple", "enumerate"):
            iterated = node.args[:1]
        for expression in iterated:
            if _is_set(expression, known):
                yield module.at(node, f"iterates over the set {ast.unparse(expression)}")


def _set_names(tree: ast.Module) -> frozenset[str]:
    """Variables and attributes (`self.x`) that the module declares or makes as sets."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            annotation = ast.unparse(node.annotation)
            if annotation.split("[")[0] in ("set", "frozenset"):
                names.append(ast.unparse(node.target))
                names.append("self." + ast.unparse(node.target))  # a dataclass's field
        elif isinstance(node, ast.Assign) and _is_set(node.value, frozenset()):
            names += [ast.unparse(target) for target in node.targets]
    return frozenset(names)


def _is_set(expression: ast.expr, known: frozenset[str]) -> bool:
    if isinstance(expression, (ast.Set, ast.SetComp)):
        return True
    if isinstance(expression, ast.Call):
        return _called(expression) in ("set", "frozenset")
    if isinstance(expression, ast.BinOp):
        return _is_set(expression.left, known) or _is_set(expression.right, known)
    return ast.unparse(expression) in known


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def identity_order(module: Module) -> Iterator[Violation]:
    """`id()` and `hash()` differ from run to run."""
    exempt = [
        node
        for function in ast.walk(module.tree)
        if isinstance(function, _FUNCTIONS) and function.name == "__hash__"
        for node in ast.walk(function)
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _called(node) in ("id", "hash") and node not in exempt:
            yield module.at(node, f"{_called(node)}() differs from run to run")


def broad_except(module: Module) -> Iterator[Violation]:
    """Whoever catches everything raises it again, or logs it and says in a comment why."""
    comments = _comment_lines(module.source)
    logging = _logging_functions(module.tree)
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler) or not _is_broad(node):
            continue
        inner = list(ast.walk(node))
        if any(isinstance(n, ast.Raise) for n in inner):
            continue
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        explained = any(line in lines or line == node.lineno - 1 for line in comments)
        if not any(_logs(n) or _calls(n, logging) for n in inner):
            yield module.at(node, "catches everything without raising or logging it")
        elif not explained:
            yield module.at(node, "catches everything without a comment that says why")


def _logging_functions(tree: ast.Module) -> list[str]:
    """Functions and methods of this module that log."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, _FUNCTIONS) and any(_logs(n) for n in ast.walk(node))
    ]


def _calls(node: ast.AST, names: list[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    return (isinstance(function, ast.Name) and function.id in names) or (
        isinstance(function, ast.Attribute) and function.attr in names
    )


def _is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))
        for kind in kinds
    )


def _logs(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _LOG_METHODS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("log", "logger")
    )


def _comment_lines(source: str) -> list[int]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.start[0] for token in tokens if token.type == tokenize.COMMENT]


def test_sleeps(module: Module) -> Iterator[Violation]:
    """Tests wait for conditions. Virtual time may pass, where no real clock is at hand."""
    if not module.is_test or module.path.startswith("tests/runtime/"):
        return
    aliases = module.aliases()
    real = any(name.startswith("dfs.runtime.real") for name in aliases.values())
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        text = ast.unparse(node.func)
        virtual = text.endswith("clock.sleep") and not real
        if (text == "sleep" or text.endswith(".sleep")) and not virtual:
            yield module.at(node, f"{text}() in a test: wait for the condition instead")


CODE_RULES: tuple[Rule, ...] = (
    import_direction,
    function_length,
    module_length,
    module_docstring,
    seams,
    mutable_globals,
    set_order,
    identity_order,
    broad_except,
)
TEST_RULES: tuple[Rule, ...] = (function_length, module_length, module_docstring, test_sleeps)

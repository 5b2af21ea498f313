"""The rules of the house, read from the code's own imports (see ARCHITECTURE.md)."""

import ast
import re
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = ("workers", "service", "api")  # a layer may import itself and those before it

# vendor -> the only places that may import it
VENDORS = {
    "fastapi": ("api/",),
    "starlette": ("api/",),
    "uvicorn": ("api/",),
    "typer": ("api/",),
    "rich": ("api/",),
    "httpx2": ("api/client",),
    "ray": ("service/cluster/",),
    "optuna": ("service/cluster/", "service/studies/importance.py"),
    "sqlalchemy": ("service/jobstore",),
    "alembic": ("service/jobstore",),
    "psycopg": ("service/jobstore",),
    "boto3": ("workers/artifacts/s3/",),
    "botocore": ("workers/artifacts/s3/",),
    "urllib3": ("workers/artifacts/s3/",),
    "torch": ("workers/",),
    "opentelemetry": ("workers/tracing/",),
    "prometheus_client": ("api/", "service/measures.py"),
    "pickle": (),
    "cloudpickle": (),
}
# What takes longer to import than it is worth at each start: imported in functions, when needed.
SLOW = re.compile(r"^(import|from) (matplotlib|pandas|scipy|sklearn)\b", re.MULTILINE)
AN_SKLEARN_ESTIMATOR = "workers/ica/estimator.py"  # for callers of the library; we import it never
ENVIRONMENT_READER = "service/settings.py"
BROAD_EXCEPT = (  # threads that must go on, and an attempt that must tell its end
    *("service/watcher.py", "service/sweeper.py", "service/leadership.py", "service/relay.py"),
    "workers/run.py",
)


@cache
def sources() -> dict[str, ast.Module]:
    """Each file's tree, by its path from the root."""
    paths = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


def modules(tree: ast.Module, known: Container[str]) -> Iterator[str]:
    """The project's own modules that a file imports; ``from package import room`` is the room."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if alias.name in known)
            case ast.ImportFrom(module=str(package)):
                rooms = [f"{package}.{alias.name}" for alias in node.names]
                yield from (room for room in rooms if room in known)
                if package in known and not all(room in known for room in rooms):
                    yield package


def test_there_are_files_in_all_layers() -> None:
    assert {name.partition("/")[0] for name in sources()} == set(LAYERS)


def test_a_file_imports_only_its_own_layer_and_those_below() -> None:
    offenders = [
        f"{name} imports {imported}"
        for name, tree in sources().items()
        for imported in imports(tree)
        if imported.split(".")[0] in LAYERS[LAYERS.index(name.partition("/")[0]) + 1 :]
    ]
    assert not offenders


def test_a_vendor_is_imported_only_where_it_belongs() -> None:
    offenders = [
        f"{name} imports {imported}"
        for name, tree in sources().items()
        for imported in imports(tree)
        if (places := VENDORS.get(imported.split(".")[0])) is not None
        and not name.startswith(places)
    ]
    assert not offenders


def test_what_is_slow_to_import_is_imported_where_it_is_needed() -> None:
    at_the_top = {name for name in sources() if SLOW.search((ROOT / name).read_text())}
    assert at_the_top == {AN_SKLEARN_ESTIMATOR}


def test_the_environment_is_read_in_settings_alone() -> None:
    offenders = [
        f"{name}:{node.lineno} reads os.{node.attr}"
        for name, tree in sources().items()
        if name != ENVIRONMENT_READER
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("os", "environ"), ("os", "getenv")}
    ]
    assert not offenders


def test_only_few_places_catch_everything_and_all_record_it() -> None:
    offenders = [
        f"{name}:{node.lineno}"
        for name, tree in sources().items()
        if name not in BROAD_EXCEPT
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (ast.unparse(node.type) if node.type is not None else "")
        in ("", "Exception", "BaseException")
    ]
    assert not offenders


def test_modules_do_not_import_one_another_in_a_circle() -> None:
    trees = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree
        for name, tree in sources().items()
    }
    graph = {name: set(modules(tree, trees)) - {name} for name, tree in trees.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_only_the_composition_root_sees_all_three_layers() -> None:
    seeing = {
        name
        for name, tree in sources().items()
        if set(LAYERS) <= {imported.split(".")[0] for imported in imports(tree)}
    }
    assert seeing == {"api/main.py"}

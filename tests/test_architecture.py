"""The rules of the house, read from the code's own imports (see ARCHITECTURE.md)."""

import ast
import re
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

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
BROAD_EXCEPT = ("service/watcher.py", "workers/run.py")


def sources() -> list[Path]:
    return [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


def modules(path: Path, known: Container[str]) -> Iterator[str]:
    """The project's own modules that a file imports; ``from package import room`` is the room."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if alias.name in known)
            case ast.ImportFrom(module=str(package)):
                rooms = [f"{package}.{alias.name}" for alias in node.names]
                yield from (room for room in rooms if room in known)
                if package in known and not all(room in known for room in rooms):
                    yield package


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_file_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    above = set(LAYERS[layer + 1 :])
    assert not {name for name in imports(path) if name.split(".")[0] in above}


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_vendor_is_imported_only_where_it_belongs(path: Path) -> None:
    for name in imports(path):
        places = VENDORS.get(name.split(".")[0])
        if places is not None:
            assert name_of(path).startswith(places), f"{name_of(path)} imports {name}"


def test_what_is_slow_to_import_is_imported_where_it_is_needed() -> None:
    at_the_top = {name_of(path) for path in sources() if SLOW.search(path.read_text())}
    assert at_the_top == {AN_SKLEARN_ESTIMATOR}


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_the_environment_is_read_in_settings_alone(path: Path) -> None:
    if name_of(path) == ENVIRONMENT_READER:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", "environ"), ("os", "getenv")}


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_only_two_places_catch_everything_and_both_record_it(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type is not None else ""
            if caught in ("", "Exception", "BaseException"):
                assert name_of(path) in BROAD_EXCEPT


def test_modules_do_not_import_one_another_in_a_circle() -> None:
    names = {}
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {name: set(modules(path, names)) - {name} for name, path in names.items()}
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
        name_of(path)
        for path in sources()
        if set(LAYERS) <= {name.split(".")[0] for name in imports(path)}
    }
    assert seeing == {"api/main.py"}

"""The rules of the house: where packages live, which way imports point, and that everything set is documented."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped, unused-ignore]

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "specialists", "supervisor", "modelfiles")
LONGEST_FILE_LINES = 400

# What each part may import of our own, itself apart. The longest matching name decides.
MAY_IMPORT = {
    "gateway": ("supervisor", "specialists", "modelfiles"),
    "supervisor": (),
    "modelfiles": (),
    "specialists": ("modelfiles",),
    "specialists.pool": (
        "modelfiles",
        "specialists.errors",
        "specialists.request",
        "specialists.manifest",
        "specialists.gguf_file",
        "specialists.engine.client",
        "specialists.engine.messages",
        "specialists.engine.protocol",
    ),
}

# Outside modules that exactly one place may import, in the packages (tests and benches are free).
ONLY_HERE = {
    "llama_cpp": ("specialists.engine.llama",),
    "llguidance": ("specialists.engine.structured",),
    "gguf": ("specialists.gguf_file", "specialists.builder"),
}


@dataclass(frozen=True, slots=True)
class Import:
    """`importer` names the module that imports `imported`; both in full, dotted."""

    importer: str
    imported: str

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[Import]:
    """Every import, wherever it stands. `from a import b` counts as `a.b` when that is a module, else as `a`."""
    importer = module_name(file)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno}: imports are absolute"
            yield from (Import(importer, _target(node.module or "", alias.name)) for alias in node.names)


def _target(module: str, name: str) -> str:
    path = REPOSITORY.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.is_dir() or path.with_suffix(".py").is_file() else module


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def sources() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py"))


def all_imports() -> list[Import]:
    return [found for file in sources() for found in imports_of(file)]


def is_allowed(found: Import) -> bool:
    if not any(within(found.imported, package) for package in PACKAGES):
        return True
    owner = max((part for part in MAY_IMPORT if within(found.importer, part)), key=len)
    return any(within(found.imported, allowed) for allowed in (owner, *MAY_IMPORT[owner]))


def tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every file that git tracks or would track, as text; binary ones are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        path = REPOSITORY / name
        if path.is_file():
            data = path.read_bytes()
            if b"\0" not in data:
                yield path, data.decode("utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_resolves_inside_the_repository(package: str) -> None:
    """No installed distribution of the same name (there is a `supervisor`) shadows ours."""
    origin = importlib.import_module(package).__file__

    assert origin is not None
    assert Path(origin).resolve().is_relative_to(REPOSITORY)


def test_imports_point_one_way() -> None:
    """gateway → supervisor, specialists, modelfiles; pool → the engine's client side; nothing points back."""
    assert [str(found) for found in all_imports() if not is_allowed(found)] == []


def test_imports_of_native_bindings_stay_in_one_module() -> None:
    """llama.cpp, llguidance and gguf are each known to one place only."""
    strays = [
        str(found)
        for found in all_imports()
        for module, owners in ONLY_HERE.items()
        if within(found.imported, module) and not any(within(found.importer, owner) for owner in owners)
    ]

    assert strays == []


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("gateway.chat", "specialists.pool.pool", True),
        ("specialists.pool.pool", "specialists.engine.client", True),
        ("specialists.pool.pool", "specialists.engine.llama", False),
        ("specialists.catalogue", "gateway.settings", False),
        ("supervisor.classifier", "specialists.request", False),
        ("modelfiles.modelfile", "specialists.manifest", False),
        ("supervisor.classifier", "supervisors", True),
    ],
)
def test_imports_are_judged_by_whole_names(importer: str, imported: str, allowed: bool) -> None:
    """The judge itself can refuse: known good and bad directions come out as such."""
    assert is_allowed(Import(importer, imported)) is allowed


@pytest.mark.parametrize("module", ["gateway.app", "gateway.cli"])
def test_the_gateway_process_never_imports_llama_cpp(module: str) -> None:
    """Importing the gateway loads neither llama.cpp's binding nor anything that would."""
    code = f"import sys, {module}; print([n for n in sys.modules if n.split('.')[0] in ('llama_cpp', 'llguidance')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_setting_is_described() -> None:
    """A setting's description is its documentation; a one-word one is none."""
    from gateway.settings import Settings

    bare = [name for name, field in Settings.model_fields.items() if len((field.description or "").split()) < 4]
    assert bare == []


def shown_default(value: object) -> str:
    if value is None:
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_readme_has_every_setting_as_it_is() -> None:
    """Its table holds one row for each COE_ variable, with today's default and description, and no other."""
    from gateway.settings import Settings

    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `COE_[A-Z_]+` .*$", readme, flags=re.MULTILINE)

    assert rows == [
        f"| `COE_{name.upper()}` | {shown_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def test_every_command_has_help() -> None:
    """Each command says what it does, and so does each of its options and arguments."""
    from gateway.cli import app

    group: Any = typer.main.get_command(app)
    bare = [name for name, command in group.commands.items() if not command.help]
    bare += [
        f"{name} {option.name}"
        for name, command in group.commands.items()
        for option in command.params
        if not option.help
    ]

    assert bare == []


def test_compose_sets_only_variables_that_exist() -> None:
    """docker-compose.yml parses, and what it hands to the containers are settings of ours."""
    from gateway.settings import Settings

    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    ours = [service for service in compose["services"].values() if "build" in service]
    given = {name for service in ours for name in service["environment"]}

    assert given <= {f"COE_{name.upper()}" for name in Settings.model_fields}


def test_no_file_is_two_ideas() -> None:
    """Python files stay short enough to be read in one sitting."""
    counts = {path: text.count("\n") for path, text in tracked_texts() if path.suffix == ".py"}

    assert {path.name: lines for path, lines in counts.items() if lines > LONGEST_FILE_LINES} == {}


def test_no_file_names_a_place_on_one_machine() -> None:
    """No tracked file holds this checkout's own path, or that of anybody's home."""
    here = str(REPOSITORY) if len(REPOSITORY.parts) > 2 else "\0"  # a checkout at /app proves nothing
    homes = re.compile(r"/(?:home|Users)/[a-z]\w+/|/root/\w")
    found = [path.name for path, text in tracked_texts() if here in text or homes.search(text)]

    assert found == []

"""`coe keys …`: make, list and remove the API keys of a gateway. One that is running notices within a second."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from gateway.keys import ApiKey, KeyFile, KeyFileError, digest_of, new_secret
from gateway.settings import Settings

app = typer.Typer(
    name="keys",
    help="API keys with names, priorities and limits; who asks a gateway then needs one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="The file of keys (default: COE_KEYS_FILE, or keys.json in COE_HOME).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
NameArgument = Annotated[str, typer.Argument(help="What the key is called in logs, metrics and lists.")]


@app.command()
def add(
    name: NameArgument,
    priority: Annotated[int, typer.Option(help="-10 to 10; more goes first where requests wait for an engine.")] = 0,
    requests_per_minute: Annotated[int | None, typer.Option(help="POST requests it may send a minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Tokens of prompts and answers a minute.")] = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it: it is shown this once, and only its digest is kept."""
    secret = new_secret()
    keys = _file(file)
    with _refusals():
        key = ApiKey(
            name=name,
            sha256=digest_of(secret.encode()),
            priority=priority,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            created=time.time(),
        )
        keys.add(key)
    typer.echo(json.dumps({"name": name, "key": secret}) if as_json else secret)
    typer.echo(f"Kept in {keys.path}, without the key itself.", err=True)


@app.command("list")
def list_keys(file: FileOption = None, as_json: JsonOption = False) -> None:
    """Show the keys there are and what each may use, without the keys themselves."""
    with _refusals():
        keys = _file(file).read()
    if as_json:
        typer.echo(json.dumps([_told(key) for key in keys], indent=2))
    else:
        Console().print(_table(keys))


@app.command()
def remove(name: NameArgument, file: FileOption = None) -> None:
    """Take a key away; requests that carry it are refused within a second."""
    with _refusals():
        _file(file).remove(name)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, ValueError) as error:
        typer.echo(f"coe: {error}", err=True)
        raise typer.Exit(2) from None


def _file(given: Path | None) -> KeyFile:
    return KeyFile(given or Settings().key_path)


def _told(key: ApiKey) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(key).items() if name != "sha256"}


def _table(keys: Sequence[ApiKey]) -> Table:
    table = Table("name", "priority", "requests/min", "tokens/min", "made")
    for key in keys:
        limits = (
            "no limit" if each is None else str(each) for each in (key.requests_per_minute, key.tokens_per_minute)
        )
        table.add_row(key.name, str(key.priority), *limits, time.strftime("%Y-%m-%d", time.gmtime(key.created)))
    return table

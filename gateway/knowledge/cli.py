"""`coe knowledge …`: make, list, search and remove the indexes from which specialists look things up.

A gateway that is running uses what is there with its next request.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.knowledge.encoders import full_name, open_encoder, token_counter
from gateway.knowledge.errors import KnowledgeError, NoIndex
from gateway.knowledge.indexing import Changes, prepare_store, update
from gateway.knowledge.librarian import index_path, knowledge_folder
from gateway.knowledge.searching import search as search_index
from gateway.knowledge.store import KnowledgeStore, open_store, remove_store
from gateway.settings import Settings
from specialists.college_file import SpecialistTable, read_college_file, without_latest
from specialists.errors import CatalogueError

app = typer.Typer(
    name="knowledge",
    help="Documents that specialists look things up in: index folders, list, search and remove.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TagOption = Annotated[str, typer.Option("--specialist", help="Tag of the specialist that the index is for.")]
CollegeOption = Annotated[
    Path | None, typer.Option("--college", help="The college.toml to use (default: COE_COLLEGE, or ./college.toml).")
]
_PIPE_COLUMNS = 200  # wide enough that nobody who greps finds a tag broken over two lines
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="Folder with text, Markdown, HTML or PDF files.")],
    specialist: TagOption,
    college: CollegeOption = None,
    embedder: Annotated[
        str | None,
        typer.Option(help="onnx (the one that ships) or sentence-transformers:<model> (default: COE_EMBEDDER)."),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew, with all folders it had.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Index a folder, or bring its index up to date: what has not changed is not read again."""
    with _refusals():
        settings = _settings(college)
        entry = _entry(settings, specialist)
        if not folder.is_dir():
            raise KnowledgeError(f"{folder}: there is no such folder")
        path = index_path(knowledge_folder(settings.home), entry.tag)
        name = full_name(settings.embedder or "" if embedder is None else embedder)
        encoder = open_encoder(name)
        folders = [*(_folders(path) if rebuild else []), folder.resolve()]
        if rebuild:
            remove_store(path)
        prepare_store(path, encoder=encoder, name=name)
        done: dict[str, Changes] = {}
        with open_store(path) as store, _progress() as bar:
            for each in dict.fromkeys(folders):
                task = bar.add_task(each.name, total=None)
                done[str(each)] = update(
                    store,
                    each,
                    encoder=encoder,
                    count_tokens=token_counter(),
                    progress=lambda count, total, _, task=task: bar.update(task, completed=count, total=total),  # type: ignore[misc]
                )
            num_passages = store.num_passages()
    if as_json:
        typer.echo(json.dumps({"specialist": entry.tag, "folders": {k: asdict(v) for k, v in done.items()}}, indent=1))
    else:
        _tell(done, num_passages)
    if entry.knowledge is None:
        typer.echo(
            f"coe: note: add `knowledge = true` to {entry.tag} in {settings.college}, or it is not used", err=True
        )
    if any(changes.refused for changes in done.values()):
        raise typer.Exit(1)


@app.command(name="list")
def list_indexes(college: CollegeOption = None, as_json: JsonOption = False) -> None:
    """List the indexes there are: specialist, folders, documents, passages, size, encoder."""
    rows = []
    with _refusals():
        for path in sorted(knowledge_folder(_settings(college).home).glob("*.sqlite")):
            with open_store(path) as store:
                rows.append({"specialist": unquote(path.stem), **asdict(store.summary())})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("specialist", "folders", "documents", "passages", "MiB", "encoder", box=None)
    for row in rows:
        size = f"{row['num_bytes'] / 1024**2:.1f}"
        counts = (str(row["num_documents"]), str(row["num_passages"]))
        table.add_row(row["specialist"], "\n".join(row["folders"]), *counts, size, row["encoder"])
    Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(table)


@app.command()
def remove(
    specialist: TagOption,
    folder: Annotated[Path | None, typer.Argument(help="Only what came from this folder; without it, all.")] = None,
    college: CollegeOption = None,
) -> None:
    """Remove a specialist's index, or what came from one folder."""
    with _refusals():
        path = index_path(knowledge_folder(_settings(college).home), specialist)
        with _open(path, specialist) as store:
            names = list(store.digests(str(folder.resolve()))) if folder is not None else []
            if folder is not None and not names:
                raise KnowledgeError(f"{folder}: nothing in the index of {specialist} came from there")
            for name in names:
                store.forget(str(folder and folder.resolve()), name)
        if folder is None:
            remove_store(path)
    typer.echo(f"removed {len(names)} documents" if folder is not None else f"removed the index of {specialist}")


@app.command()
def search(
    question: Annotated[str, typer.Argument(help="What a user would ask.")],
    specialist: TagOption,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Passages shown at most.")] = 5,
    college: CollegeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which passages a question would bring into the prompt."""
    with _refusals():
        path = index_path(knowledge_folder(_settings(college).home), specialist)
        with _open(path, specialist) as store:
            hits = search_index(store, question, open_encoder(store.encoder).embed(question), limit=limit)
    rows = [
        {
            "source": hit.passage.source,
            "position": hit.passage.position,
            "score": round(hit.score, 3),
            "similarity": hit.similarity and round(hit.similarity, 3),
            "text": hit.passage.text,
        }
        for hit in hits
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['score']:.3f}  {row['source']}, {row['position']}\n{row['text']}\n")
    if not rows:
        typer.echo("nothing belongs to that question")


# ── small parts ──────────────────────────────────────────────────────────────


@contextmanager
def _refusals() -> Iterator[None]:
    """What the person can mend, as one line and exit code 2."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        _refuse(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except (KnowledgeError, CatalogueError, RuntimeError) as error:  # RuntimeError: nobody's home
        _refuse(str(error))


def _refuse(message: str) -> None:
    typer.echo(f"coe: {message}", err=True)
    raise typer.Exit(2)


def _settings(college: Path | None) -> Settings:
    return Settings() if college is None else Settings(college=college)


def _entry(settings: Settings, tag: str) -> SpecialistTable:
    """The specialist in the college's file. Raises KnowledgeError for a tag that it has not."""
    entries = read_college_file(settings.college).specialist
    for entry in entries:
        if without_latest(entry.tag) == without_latest(tag):
            return entry
    known = ", ".join(entry.tag for entry in entries)
    raise KnowledgeError(f"--specialist: {tag!r} is none of the tags of {settings.college}: {known}")


@contextmanager
def _open(path: Path, tag: str) -> Iterator[KnowledgeStore]:
    try:
        with open_store(path) as store:
            yield store
    except NoIndex:
        raise NoIndex(f"there is no index for {tag}; make one with: coe knowledge add DIR --specialist {tag}") from None


def _folders(path: Path) -> list[Path]:
    """What an index was made of, as far as that is still there; nothing where it cannot be read any more."""
    try:
        with open_store(path) as store:
            return [Path(folder) for folder in store.summary().folders if Path(folder).is_dir()]
    except KnowledgeError:
        return []


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _tell(done: dict[str, Changes], num_passages: int) -> None:
    for folder, changes in done.items():
        typer.echo(
            f"{folder}: {changes.added} added, {changes.changed} changed, {changes.unchanged} unchanged, "
            f"{changes.removed} removed; {changes.passages} passages written, {num_passages} in all"
        )
        for reason in changes.refused:
            typer.echo(f"coe: not indexed: {reason}", err=True)

"""The command `coe`. Each command gathers what it needs, calls the part that does the work, and reports.

Wrong usage or settings end with exit code 2 and one line that names the field and the mend; work that failed ends
with 1. llama.cpp is never imported in this process.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console

import gateway.keys_cli
import gateway.knowledge.cli
import specialists.builder.cli
import supervisor.cli
from gateway import plan_tables, tables
from gateway.college import College, describe
from gateway.doctor import diagnose, frame_findings, is_fit
from gateway.footprints import FootprintPlanner, open_planner
from gateway.machine import read_machine
from gateway.memory import InvalidSetting, read_engine_memory
from gateway.memory import memory_budget as memory_budget_bytes
from gateway.plan import plan_college
from gateway.settings import LogLevel, Settings
from gateway.terminal_chat import ChatClient, TerminalChat, refusal
from gateway.terminal_screen import PlainScreen, RichScreen
from specialists.errors import CatalogueError, SpecialistError

app = typer.Typer(
    name="coe",
    help="A college of specialists behind one OpenAI-compatible address.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(supervisor.cli.app, name="supervisor")
app.add_typer(gateway.keys_cli.app, name="keys")
app.add_typer(gateway.knowledge.cli.app, name="knowledge")

DEFAULT_URL = "http://127.0.0.1:8000"
PIPE_COLUMNS = 200  # wide enough that nobody who greps finds a tag broken over two lines

CollegeOption = Annotated[
    Path | None, typer.Option("--college", help="The college.toml to use (default: COE_COLLEGE, or ./college.toml).")
]
BudgetOption = Annotated[
    str | None, typer.Option("--memory-budget", help="Memory that loaded models may take together, such as 15GiB.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
UrlOption = Annotated[str, typer.Option("--url", help="Address of a running gateway.")]


def main() -> None:
    """The entry point. A pipe that is closed early (`coe models | head`) is no error."""
    logging.getLogger().addHandler(logging.NullHandler())  # commands report by themselves; `serve` sets up its log
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn what the person can mend into one line and exit code 2."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        _refuse(f"{name} (COE_{name.upper()}, or its option): {first['msg']}")
    except (InvalidSetting, SpecialistError) as error:
        _refuse(str(error))


def _refuse(message: str) -> None:
    typer.echo(f"coe: {message}", err=True)
    raise typer.Exit(2)


def _settings(**options: Any) -> Settings:
    """Settings from the environment, with the options that were given before them."""
    return Settings(**{name: value for name, value in options.items() if value is not None})


def _report(data: Any, *, as_json: bool, table: Any) -> None:
    if as_json:
        typer.echo(tables.to_json(data))
    else:
        Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to listen on (default: 8000).")] = None,
    college: CollegeOption = None,
    memory_budget: BudgetOption = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads for each engine.")] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="Least severe log line that is written.")] = None,
) -> None:
    """Serve a college over HTTP until SIGTERM or Ctrl-C, letting running answers finish."""
    from gateway.composition import build_services
    from gateway.server import run

    with usage_errors():
        settings = _settings(
            host=host,
            port=port,
            college=college,
            memory_budget=memory_budget,
            threads=threads,
            log_level=log_level,
        )
        raise typer.Exit(run(settings, build_services))


@app.command()
def chat(
    tag: Annotated[str, typer.Argument(help="The specialist to talk to; auto lets the college choose.")] = "auto",
    url: UrlOption = DEFAULT_URL,
    api_key: Annotated[str | None, typer.Option(envvar="COE_API_KEY", help="Key that the gateway wants.")] = None,
) -> None:
    """Chat in the terminal with a running gateway; in a pipe, each line is one message."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    screen = RichScreen() if on_terminal else PlainScreen()
    screen.note(f"{url} · {tag} · /help lists the commands")
    with _http(api_key) as http:
        conversation = TerminalChat(ChatClient(http, url.rstrip("/").removesuffix("/v1")), screen, tag)
        conversation.run()
    if conversation.failed and not on_terminal:
        raise typer.Exit(1)


def _http(api_key: str | None) -> httpx.Client:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.Client(headers=headers, timeout=httpx.Timeout(300, connect=5))


@app.command()
def models(
    college: CollegeOption = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Ask this running gateway instead of reading a file.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="COE_API_KEY", help="Key that the gateway wants.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the specialists of a college: tag, domains, file, size, and whether they can be served."""
    if url is not None:
        served = _served_models(url, api_key)
        _report(served, as_json=as_json, table=tables.served(served))
        return
    found = _college(college)
    _report(tables.model_rows(found), as_json=as_json, table=tables.models(found))


def _served_models(url: str, api_key: str | None) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = _ask_gateway("GET", url, "/v1/models", api_key)["data"]
    return listed


def _ask_gateway(method: str, url: str, path: str, api_key: str | None) -> dict[str, Any]:
    """What a running gateway answers; when none does, or it refuses, that is said and the command ends with 1."""
    address = f"{url.rstrip('/').removesuffix('/v1')}{path}"
    try:
        with _http(api_key) as http:
            response = http.request(method, address)
    except httpx.HTTPError as error:
        typer.echo(f"coe: nothing answers at {address} ({error}); start a gateway with `coe serve`", err=True)
        raise typer.Exit(1) from None
    if response.status_code != 200:
        typer.echo(f"coe: {refusal(response)}", err=True)
        raise typer.Exit(1)
    answer: dict[str, Any] = response.json()
    return answer


def _college(college: Path | None, memory_budget: str | None = None) -> College:
    """The college, described; one that cannot be read is a usage error."""
    with usage_errors():
        found = describe(_settings(college=college, memory_budget=memory_budget), read_engine_memory())
        if found.error is not None:
            raise CatalogueError(found.error)
    return found


@app.command()
def doctor(
    college: CollegeOption = None,
    memory_budget: BudgetOption = None,
    host: Annotated[str | None, typer.Option(help="Address that would be listened on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port that would be listened on.")] = None,
    frame: Annotated[
        bool, typer.Option("--frame", help="Compare the frames of a running gateway with their files instead.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    api_key: Annotated[str | None, typer.Option(envvar="COE_API_KEY", help="Key that the gateway wants.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is missing on this machine, and how to mend it. Exits with 0 only when nothing failed."""
    if frame:
        checked = frame_findings(_ask_gateway("POST", url, "/coe/frames/check", api_key))
        _report(checked, as_json=as_json, table=tables.findings(checked))
        raise typer.Exit(0 if is_fit(checked) else 1)
    with usage_errors():
        settings = _settings(college=college, memory_budget=memory_budget, host=host, port=port)
        found, _ = _planned(settings)
        findings = diagnose(read_machine(host=settings.host, port=settings.port), found)
    _report(findings, as_json=as_json, table=tables.findings(findings))
    raise typer.Exit(0 if is_fit(findings) else 1)


def _planned(settings: Settings) -> tuple[College, FootprintPlanner]:
    """The college with its engines as llama.cpp plans them, and who asked it."""
    reading = read_engine_memory()
    planner = open_planner(settings, reading, memory_budget_bytes(settings, reading))
    return describe(settings, reading, footprint=planner.footprint), planner


@app.command()
def plan(college: CollegeOption = None, memory_budget: BudgetOption = None, as_json: JsonOption = False) -> None:
    """Show what each specialist's engine needs in memory, what fits the budget, and what swaps would move."""
    with usage_errors():
        found, planner = _planned(_settings(college=college, memory_budget=memory_budget))
        if found.error is not None:
            raise CatalogueError(found.error)
        planned = plan_college(found, placed=planner.placed)
    _report(plan_tables.plan_object(planned), as_json=as_json, table=plan_tables.plan_view(planned))


@app.command()
def pull(
    tags: Annotated[list[str] | None, typer.Argument(help="Which specialists' weights; none named means all.")] = None,
    college: CollegeOption = None,
) -> None:
    """Download the weights of specialists whose FROM is on the hub; what is already here is not fetched again."""
    from gateway.pull import pull_weights

    with usage_errors():
        failures = pull_weights(_settings(college=college).college, tags or [], Console(stderr=True))
    for failure in failures:
        typer.echo(f"coe: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


specialists.builder.cli.register(app)


if __name__ == "__main__":
    main()

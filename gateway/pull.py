"""Fetches the weights of specialists from the hub, with a progress bar for each."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modelfiles.errors import DownloadFailed, ModelfileError
from modelfiles.hub import Hub, HuggingFaceHub
from modelfiles.resolve import HubSource, resolve
from specialists.catalogue import Catalogue, load_catalogue


def pull_weights(college: Path, tags: Sequence[str], console: Console, *, hub: Hub | None = None) -> list[str]:
    """Fetch what the named specialists (none named: all) need and do not have yet; returns what failed, in words.

    A download that fails does not stop the next one. Raises CatalogueError or UnknownSpecialist.
    """
    hub = hub or HuggingFaceHub()
    wanted = list(_wanted(load_catalogue(college, hub=hub), tags))
    if not wanted:
        console.print("Nothing to download: no weights of these specialists are on the hub.")
    failures = []
    with _bars(console) as bars:
        for source in wanted:
            name = f"hf.co/{source.repo}"
            bar = bars.add_task(name, total=None)
            try:
                path = resolve(source, hub=hub, allow_download=True, on_progress=_advance(bars, bar))
            except DownloadFailed as error:
                bars.remove_task(bar)
                failures.append(f"{error}; is this machine online? A local file can be named with model = in {college}")
            except ModelfileError as error:
                bars.remove_task(bar)
                failures.append(str(error))
            else:
                size = path.stat().st_size
                bars.update(bar, total=size, completed=size)
    return failures


def _wanted(catalogue: Catalogue, tags: Sequence[str]) -> Iterator[HubSource]:
    """Each hub source once, in the order in which they are named."""
    names = [catalogue.resolve(tag).tag for tag in tags] or list(catalogue.models)
    sources = [source for name in names for source in catalogue.sources[name]]
    yield from dict.fromkeys(source for source in sources if isinstance(source, HubSource))


def _advance(bars: Progress, bar: TaskID) -> Callable[[int, int], None]:
    return lambda bytes_done, bytes_total: bars.update(bar, completed=bytes_done, total=bytes_total)


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)

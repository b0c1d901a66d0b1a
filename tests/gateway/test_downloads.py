"""Downloads: one for however many ask, with progress, resumed after a break, and never anything unchecked."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.downloads import MAX_DOWNLOADS, DownloadDesk, HubFailed, PullStatus
from modelfiles.errors import DownloadFailed
from modelfiles.hub import HuggingFaceHub, Progress
from modelfiles.resolve import HubSource
from modelfiles.transfer import PIECE_BYTES
from specialists.errors import QueueFull, ShuttingDown
from tests.gateway.hub_server import REPOSITORY, HubServer, hub_server
from tests.gateway.ollama.house import FakeHub

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * (3 * PIECE_BYTES // 256)
SOURCE = HubSource(REPOSITORY, "Q8_0")


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server({"m-Q8_0.gguf": DATA, "README.md": b"# hi"}) as server:
        yield server


def hub_at(server: HubServer, folder: Path) -> HuggingFaceHub:
    return HuggingFaceHub(endpoint=server.address, cache_dir=folder)


async def fetched(desk: DownloadDesk, source: HubSource = SOURCE) -> list[PullStatus]:
    return [status async for status in desk.fetch(source)]


async def test_a_download_tells_what_it_does(server: HubServer, tmp_path: Path) -> None:
    """Manifest, bytes of the file under its digest, check; and the file is there."""
    statuses = await fetched(DownloadDesk(hub_at(server, tmp_path)))
    digest = hashlib.sha256(DATA).hexdigest()

    assert [status.status for status in statuses if status.status != f"pulling {digest[:12]}"] == [
        "pulling manifest",
        "verifying sha256 digest",
    ]
    progress = [status for status in statuses if status.total is not None]
    assert progress[-1] == PullStatus(
        status=f"pulling {digest[:12]}", digest=f"sha256:{digest}", total=len(DATA), completed=len(DATA)
    )
    assert hub_at(server, tmp_path).cached_files(REPOSITORY)["m-Q8_0.gguf"].read_bytes() == DATA


async def test_what_is_here_is_not_fetched_again(server: HubServer, tmp_path: Path) -> None:
    """The second pull moves no byte of the file, and says that all of it is here."""
    await fetched(DownloadDesk(hub_at(server, tmp_path)))
    statuses = await fetched(DownloadDesk(hub_at(server, tmp_path)))

    assert server.ranges == [("m-Q8_0.gguf", 0)]
    assert statuses[-1].completed == len(DATA)


async def test_a_file_that_is_not_what_was_promised_is_removed(server: HubServer, tmp_path: Path) -> None:
    """The pull fails, nothing of it gets a name, and the next pull fetches it anew."""
    server.lies["m-Q8_0.gguf"] = "0" * 64
    real = hub_at(server, tmp_path)
    with pytest.raises(HubFailed, match=r"m-Q8_0\.gguf is not what the hub says it is"):
        await fetched(DownloadDesk(real))
    assert real.cached_files(REPOSITORY) == {}
    assert [path.stat().st_size for path in (tmp_path / "models--owner--repo" / "blobs").iterdir()] == [0]

    server.lies.clear()
    await fetched(DownloadDesk(real))
    assert len(server.ranges) == 2


async def test_many_who_ask_share_one_download(tmp_path: Path) -> None:
    """Each hears of it, and the file is fetched once."""
    hub = GatedHub(files={"m-Q8_0.gguf": DATA}, folder=tmp_path)
    desk = DownloadDesk(hub)
    pulls = [asyncio.create_task(fetched(desk)) for _ in range(5)]
    await asyncio.to_thread(hub.begun.wait, 5)
    hub.gate.set()
    all_statuses = await asyncio.gather(*pulls)

    assert hub.downloaded == ["m-Q8_0.gguf"]
    assert {statuses[-1].status for statuses in all_statuses} == {"verifying sha256 digest"}


class GatedHub(FakeHub):
    """Stands still in the middle of a download until `gate` opens; says when it was abandoned."""

    def __init__(self, **fields: object) -> None:
        super().__init__(**fields)  # type: ignore[arg-type]
        self.gate, self.begun, self.ended = threading.Event(), threading.Event(), threading.Event()

    def download(
        self, repo: str, files: Sequence[str], on_progress: Progress, on_check: Callable[[], None]
    ) -> list[Path]:
        self.begun.set()
        self.gate.wait(10)
        try:
            return super().download(repo, files, on_progress, on_check)
        finally:
            self.ended.set()


async def test_a_download_that_nobody_waits_for_stops(tmp_path: Path) -> None:
    """At the next sign of progress; one who still waits keeps it going."""
    hub = GatedHub(files={"m-Q8_0.gguf": DATA}, folder=tmp_path)
    desk = DownloadDesk(hub)
    first, second = desk.fetch(SOURCE), desk.fetch(SOURCE)
    assert (await anext(first)).status == (await anext(second)).status == "pulling manifest"
    await first.aclose()
    hub.gate.set()
    rest = [status.status async for status in second]
    assert rest[-1] == "verifying sha256 digest"

    lonely = GatedHub(files={"m-Q8_0.gguf": DATA}, folder=tmp_path)
    only = DownloadDesk(lonely).fetch(SOURCE)
    await anext(only)
    await only.aclose()
    lonely.gate.set()
    assert await asyncio.to_thread(lonely.ended.wait, 5)
    assert lonely.downloaded == ["m-Q8_0.gguf"]  # begun; its first word of progress ended it


async def test_only_so_many_at_once(tmp_path: Path) -> None:
    """The next one is told to come back, and the disk is not torn apart."""
    hub = GatedHub(files={"m-Q8_0.gguf": DATA}, folder=tmp_path)
    desk = DownloadDesk(hub)
    pulls = [desk.fetch(HubSource(f"owner/r{number}")) for number in range(MAX_DOWNLOADS)]
    for pull in pulls:
        await anext(pull)
    with pytest.raises(QueueFull):
        await fetched(desk)
    hub.gate.set()
    for pull in pulls:
        await pull.aclose()


async def test_a_gateway_that_drains_waits_for_no_download(tmp_path: Path) -> None:
    """Whoever waits is told that what has arrived is kept."""
    hub = GatedHub(files={"m-Q8_0.gguf": DATA}, folder=tmp_path)
    pull = DownloadDesk(hub, is_draining=lambda: True).fetch(SOURCE)
    with pytest.raises(ShuttingDown, match="is kept"):
        async for _ in pull:
            pass
    hub.gate.set()


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (HubSource(REPOSITORY, "Q2_K"), "nothing fits 'Q2_K'"),
        (HubSource("owner/other"), r"hf\.co/owner/other could not be listed.*is this machine online\?"),
    ],
)
async def test_what_the_hub_lacks_is_said(server: HubServer, tmp_path: Path, source: HubSource, match: str) -> None:
    """Which repository, which file, and what there is."""
    with pytest.raises(HubFailed, match=match):
        await fetched(DownloadDesk(hub_at(server, tmp_path)), source)


async def test_without_a_network_the_error_is_clear(tmp_path: Path) -> None:
    """No hub, no hanging, and a question that helps."""
    nowhere = HuggingFaceHub(endpoint="http://127.0.0.1:9", cache_dir=tmp_path)
    with pytest.raises(HubFailed, match="is this machine online"):
        await fetched(DownloadDesk(nowhere))


async def test_what_nobody_expected_is_told_without_details(tmp_path: Path) -> None:
    """The thread never dies in silence, and its words may hold paths."""
    with pytest.raises(HubFailed, match=r"hf.co/owner/repo:Q8_0 could not be downloaded \(KeyError\)"):
        await fetched(DownloadDesk(FakeHub(error=KeyError("/secret"), folder=tmp_path)))
    with pytest.raises(HubFailed, match="offline; is this machine online"):
        await fetched(DownloadDesk(FakeHub(error=DownloadFailed("offline"), folder=tmp_path)))


async def test_a_broken_pull_goes_on_where_it_stopped(server: HubServer, tmp_path: Path) -> None:
    """What had arrived is not asked for again, and the whole is checked."""
    server.gate = threading.Event()
    first = DownloadDesk(hub_at(server, tmp_path)).fetch(SOURCE)
    async for status in first:
        if status.completed:
            break
    await first.aclose()
    server.gate.set()

    statuses = await fetched(DownloadDesk(hub_at(server, tmp_path)))

    assert [start > 0 for _, start in server.ranges] == [False, True]
    assert statuses[-1].status == "verifying sha256 digest"
    assert hub_at(server, tmp_path).cached_files(REPOSITORY)["m-Q8_0.gguf"].read_bytes() == DATA

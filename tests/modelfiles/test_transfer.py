"""One file of the hub: resumed, checked, laid where others find it, and never believed beyond what was promised."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from huggingface_hub import try_to_load_from_cache

from modelfiles.errors import DownloadFailed
from modelfiles.transfer import MAX_ATTEMPTS, Body, HubFile, LinkBroke, fetch

DATA = b"0123456789" * 10
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = HubFile(name="sub/m.gguf", commit=COMMIT, etag=hashlib.sha256(DATA).hexdigest(), size=len(DATA))


@dataclass
class Source:
    """Sends `data` from where it is asked, in pieces of 30 bytes; breaks after `breaks[i]` bytes the i-th time."""

    data: bytes = DATA
    breaks: list[int] = field(default_factory=list)
    knows_ranges: bool = True
    offsets: list[int] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    num_checks: int = 0

    @contextmanager
    def open(self, offset: int) -> Iterator[Body]:
        self.offsets.append(offset)
        until = self.breaks.pop(0) if self.breaks else None
        yield Answer(self.data[offset:] if self.knows_ranges else self.data, self.knows_ranges and offset > 0, until)

    def fetch(self, folder: Path, file: HubFile = FILE) -> Path:
        return fetch(
            file, folder, self.open, on_bytes=self.heard.append, on_check=self._checked, pause=self.pauses.append
        )

    def _checked(self) -> None:
        self.num_checks += 1


@dataclass
class Answer:
    data: bytes
    is_rest: bool
    breaks_after: int | None

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 30):
            if self.breaks_after is not None and start >= self.breaks_after:
                raise LinkBroke("reset")
            yield self.data[start : start + 30]


def test_a_file_arrives_and_is_checked(tmp_path: Path) -> None:
    """Its bytes are told as they come, and its digest is computed once."""
    source = Source()
    path = source.fetch(tmp_path)

    assert path.read_bytes() == DATA
    assert source.heard[:4] == [30, 60, 90, 100]
    assert (source.offsets, source.num_checks) == ([0], 1)


def test_the_cache_is_the_librarys(tmp_path: Path) -> None:
    """huggingface_hub finds the file by its name, so nothing is fetched twice."""
    Source().fetch(tmp_path / "models--owner--repo")

    found = try_to_load_from_cache("owner/repo", "sub/m.gguf", cache_dir=tmp_path)
    assert Path(str(found)).read_bytes() == DATA


def test_what_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    """Nor is what another revision has already."""
    Source().fetch(tmp_path)
    again = Source()
    other = HubFile(name="renamed.gguf", commit=COMMIT[::-1], etag=FILE.etag, size=FILE.size)

    assert again.fetch(tmp_path).read_bytes() == again.fetch(tmp_path, other).read_bytes() == DATA
    assert again.offsets == []
    assert (tmp_path / "refs" / "main").read_text() == COMMIT[::-1]


def test_a_broken_link_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    """Within one attempt, after a pause, and never from the beginning."""
    source = Source(breaks=[30, 30])

    assert source.fetch(tmp_path).read_bytes() == DATA
    assert source.offsets == [0, 30, 60]
    assert len(source.pauses) == 2


def test_an_attempt_that_failed_is_taken_up_by_the_next(tmp_path: Path) -> None:
    """What had arrived is kept; five attempts in a row that bring nothing end it."""
    hopeless = Source(breaks=[60, *[0] * MAX_ATTEMPTS])
    with pytest.raises(DownloadFailed, match="reset"):
        hopeless.fetch(tmp_path)
    later = Source()
    later.fetch(tmp_path)

    assert hopeless.offsets == [0] + [60] * MAX_ATTEMPTS
    assert later.offsets == [60]


def test_whoever_listens_can_end_it(tmp_path: Path) -> None:
    """What it raises goes through, and what has arrived is kept."""

    def leave(num_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(FILE, tmp_path, Source().open, on_bytes=leave, on_check=lambda: None)
    later = Source()
    later.fetch(tmp_path)
    assert later.offsets == [30]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(tmp_path: Path) -> None:
    """And what it sends replaces what was there."""
    source = Source(breaks=[60], knows_ranges=False)

    assert source.fetch(tmp_path).read_bytes() == DATA
    assert source.offsets == [0, 60]


def test_what_is_not_as_promised_never_gets_its_name(tmp_path: Path) -> None:
    """Other bytes, more bytes or fewer; the next attempt begins anew."""
    for data in (DATA[::-1], DATA + b"more"):
        with pytest.raises(DownloadFailed, match=r"m\.gguf"):
            Source(data=data).fetch(tmp_path)
        assert not (tmp_path / "snapshots").exists()
    with pytest.raises(DownloadFailed, match="closed too early"):
        Source(data=DATA[:50]).fetch(tmp_path)

    later = Source()
    assert later.fetch(tmp_path).read_bytes() == DATA


def test_leftovers_of_something_else_are_thrown_away(tmp_path: Path) -> None:
    """More bytes than the file has cannot be its beginning."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"{FILE.etag}.partial").write_bytes(b"x" * 500)

    assert Source().fetch(tmp_path).read_bytes() == DATA


def test_two_who_fetch_the_same_take_turns(tmp_path: Path) -> None:
    """The second waits for the lock of the first, and finds its file."""
    (tmp_path / "blobs").mkdir()
    partial = tmp_path / "blobs" / f"{FILE.etag}.partial"
    source = Source()
    with partial.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def finish(seconds: float) -> None:
            held.write(DATA)
            held.flush()
            partial.rename(tmp_path / "blobs" / FILE.etag)
            fcntl.flock(held, fcntl.LOCK_UN)

        path = fetch(FILE, tmp_path, source.open, on_bytes=source.heard.append, on_check=lambda: None, pause=finish)

    assert path.read_bytes() == DATA
    assert source.offsets == []


def test_small_files_have_no_sha256_to_check(tmp_path: Path) -> None:
    """The hub names them by git's digest."""
    source = Source()
    source.fetch(tmp_path, HubFile(name="m.gguf", commit=COMMIT, etag="a" * 40, size=len(DATA)))

    assert source.num_checks == 0


@pytest.mark.parametrize(
    ("name", "commit", "etag", "size"),
    [
        ("../m.gguf", COMMIT, FILE.etag, 1),
        ("/etc/m.gguf", COMMIT, FILE.etag, 1),
        ("a/../../m.gguf", COMMIT, FILE.etag, 1),
        ("m.gguf", "../main", FILE.etag, 1),
        ("m.gguf", "", FILE.etag, 1),
        ("m.gguf", COMMIT, "../../x", 1),
        ("m.gguf", COMMIT, "", 1),
        ("m.gguf", COMMIT, ".", 1),
        ("m.gguf", COMMIT, FILE.etag, -1),
    ],
)
def test_a_hub_cannot_place_files_elsewhere(name: str, commit: str, etag: str, size: int) -> None:
    """What it says of a file becomes part of paths, so it is looked at first."""
    with pytest.raises(DownloadFailed):
        HubFile(name=name, commit=commit, etag=etag, size=size)

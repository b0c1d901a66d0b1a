"""FROM → a file: paths, packages and the hub, the latter against a hub of our own on loopback."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelfiles.errors import DownloadFailed, ModelfileError, NotDownloaded, WeightsMissing
from modelfiles.hub import HuggingFaceHub, Progress
from modelfiles.resolve import (
    HubSource,
    PackageSource,
    PathSource,
    choose_files,
    parse_source,
    resolve,
)

BASE = Path("/college")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """A hub that keeps its files in memory and records what it was asked."""

    remote: Sequence[str] = ()
    cache: Mapping[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def cached_files(self, repo: str) -> Mapping[str, Path]:
        self.asked.append("cached_files")
        return self.cache

    def list_files(self, repo: str) -> Sequence[str]:
        self.asked.append("list_files")
        return self.remote

    def download(self, repo: str, files: Sequence[str], on_progress: Progress) -> list[Path]:
        self.asked.append(f"download {' '.join(files)}")
        return [Path("/cache") / file for file in files]


class UnreachableHub(FakeHub):
    def list_files(self, repo: str) -> Sequence[str]:
        raise DownloadFailed("offline")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("./m.gguf", PathSource(BASE / "m.gguf")),
        ("/srv/m.gguf", PathSource(Path("/srv/m.gguf"))),
        ("~/m.gguf", PathSource(Path.home() / "m.gguf")),
        ("hf.co/owner/repo", HubSource("owner/repo")),
        ("hf.co/owner/repo:q4_k_m", HubSource("owner/repo", "q4_k_m")),
        ("hf.co/owner/repo:sub/m-Q8_0.gguf", HubSource("owner/repo", "sub/m-Q8_0.gguf")),
        ("package:mod/a/m.gguf", PackageSource("mod", "a/m.gguf")),
    ],
)
def test_sources_are_told_apart(text: str, expected: object) -> None:
    """Prefixes decide; everything else is a path from the base."""
    assert parse_source(text, base=BASE) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf.co/",
        "hf.co/owner",
        "hf.co/owner/repo/file.gguf",
        "hf.co/../repo",
        "hf.co/own..er/repo",
        "hf.co/owner/repo:",
        "hf.co/owner/repo:../../etc/x.gguf",
        "hf.co/owner/repo:/etc/x.gguf",
        "hf.co/owner/repo:a\nb",
        "package:mod",
        "package:mod/../x.gguf",
        "package:mod//x.gguf",
        "package:a.b/x.gguf",
        "package:/x.gguf",
        "package:mod/.hidden",
        "a\0b",
        "~nobody-of-that-name/m.gguf",
    ],
)
def test_sources_that_could_leave_their_place_are_refused(text: str) -> None:
    """Names are matched in full; nothing climbs out of a package or of the cache."""
    with pytest.raises(ModelfileError, match="FROM"):
        parse_source(text, base=BASE)


@given(st.text(max_size=60), st.sampled_from(["hf.co/a/b:", "hf.co/", "package:", "package:m/"]))
def test_no_source_contains_a_step_upwards(text: str, prefix: str) -> None:
    """Whatever is accepted as a hub or package name has no empty, hidden or upward step."""
    try:
        source = parse_source(prefix + text, base=BASE)
    except ModelfileError:
        return
    named = [source.repo, source.selector] if isinstance(source, HubSource) else [str(getattr(source, "file", ""))]
    assert all(step and not step.startswith(".") for name in named if name for step in name.split("/"))


def test_a_missing_path_names_the_mend(tmp_path: Path) -> None:
    """A path that is not there, and a folder, are both refused in words."""
    with pytest.raises(WeightsMissing, match="does not exist; put the weights there"):
        resolve(PathSource(tmp_path / "m.gguf"), hub=FakeHub())
    with pytest.raises(WeightsMissing, match="is not a file"):
        resolve(PathSource(tmp_path), hub=FakeHub())


def test_a_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file inside a package is found although importing that package would fail."""
    package = tmp_path / "explosive_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)

    assert resolve(PackageSource("explosive_weights", "m.gguf"), hub=FakeHub()) == package / "m.gguf"
    assert "explosive_weights" not in sys.modules
    with pytest.raises(WeightsMissing, match=r"n\.gguf is not in the Python package explosive_weights"):
        resolve(PackageSource("explosive_weights", "n.gguf"), hub=FakeHub())


@pytest.mark.parametrize("module", ["no_such_package", "__main__", "sys"])
def test_a_package_that_is_not_there_names_the_mend(module: str) -> None:
    """A module that is absent, or is no package, is reported as such."""
    with pytest.raises(WeightsMissing, match="install the package that carries"):
        resolve(PackageSource(module, "m.gguf"), hub=FakeHub())


FILES = [
    "README.md",
    "mmproj-m-F16.gguf",
    "m-Q4_K.gguf",
    "m-Q4_K_M.gguf",
    "m-IQ4_XS.gguf",
    "Q8_0/m-Q8_0-00002-of-00002.gguf",
    "Q8_0/m-Q8_0-00001-of-00002.gguf",
    "../evil-Q2_K.gguf",
]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", ("m-Q4_K_M.gguf",)),
        ("q4_k_m", ("m-Q4_K_M.gguf",)),
        ("Q4_K", ("m-Q4_K.gguf",)),
        ("iq4_xs", ("m-IQ4_XS.gguf",)),
        ("Q8_0", ("Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf")),
        ("mmproj-m-F16.gguf", ("mmproj-m-F16.gguf",)),
    ],
)
def test_a_quantisation_is_found_as_a_whole_word(selector: str, expected: tuple[str, ...]) -> None:
    """Case does not matter, Q4_K is not Q4_K_M, all parts of a split model come along, projectors only by name."""
    assert choose_files(FILES, HubSource("o/r", selector)) == expected


@pytest.mark.parametrize("selector", ["Q4_XS", "Q2_K", "none.gguf", "F16"])
def test_a_selector_that_fits_nothing_lists_the_choice(selector: str) -> None:
    """Nothing fitting is an error that shows what there is; a name with an upward step never fits."""
    with pytest.raises(ModelfileError, match=r"nothing fits .* It holds: Q8_0/m-Q8_0-00001-of-00002\.gguf"):
        choose_files(FILES, HubSource("o/r", selector))


def test_an_open_choice_is_refused() -> None:
    """Two models and no preference: the error says so instead of guessing."""
    with pytest.raises(ModelfileError, match="more than one file was chosen"):
        choose_files(["a.gguf", "b.gguf"], HubSource("o/r"))


def test_nothing_is_downloaded_unasked() -> None:
    """Without leave to download only the cache is looked at."""
    hub = FakeHub(remote=["m.gguf"])

    with pytest.raises(NotDownloaded):
        resolve(HubSource("o/r"), hub=hub)
    assert hub.asked == ["cached_files"]


def test_what_is_cached_is_not_fetched_again() -> None:
    """A whole model in the cache is the answer, even with leave to download."""
    hub = FakeHub(cache={"m-Q8_0.gguf": Path("/cache/m-Q8_0.gguf")})

    assert resolve(HubSource("o/r", "Q8_0"), hub=hub, allow_download=True) == Path("/cache/m-Q8_0.gguf")
    assert hub.asked == ["cached_files"]


def test_another_cached_quantisation_is_not_the_one_asked_for() -> None:
    """What the cache holds of the repository does not pass for a quantisation it does not hold."""
    hub = FakeHub(cache={"m-Q8_0.gguf": Path("/cache/m-Q8_0.gguf")})

    with pytest.raises(NotDownloaded, match=r"hf\.co/o/r:Q4_K_M has not been downloaded"):
        resolve(HubSource("o/r", "Q4_K_M"), hub=hub)


def test_a_download_without_selector_follows_the_repository() -> None:
    """The repository's listing, not what happens to be cached, settles which file is meant."""
    hub = FakeHub(remote=["m-Q4_K_M.gguf", "m-Q8_0.gguf"], cache={"m-Q8_0.gguf": Path("/cache/m-Q8_0.gguf")})

    assert resolve(HubSource("o/r"), hub=hub, allow_download=True) == Path("/cache/m-Q4_K_M.gguf")


def test_an_unreachable_hub_leaves_what_is_cached() -> None:
    """Offline, a whole model in the cache still is the answer to a download."""
    hub = UnreachableHub(cache={"m.gguf": Path("/cache/m.gguf")})

    assert resolve(HubSource("o/r"), hub=hub, allow_download=True) == Path("/cache/m.gguf")
    with pytest.raises(DownloadFailed, match="offline"):
        resolve(HubSource("o/r"), hub=UnreachableHub(), allow_download=True)


def test_a_split_model_with_a_part_missing_is_completed() -> None:
    """One cached part of two is not the model; the download fetches both and answers with the first."""
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    hub = FakeHub(remote=parts, cache={parts[0]: Path("/cache") / parts[0]})

    with pytest.raises(NotDownloaded):
        resolve(HubSource("o/r"), hub=hub)
    assert resolve(HubSource("o/r"), hub=hub, allow_download=True) == Path("/cache") / parts[0]
    assert hub.asked[-1] == f"download {' '.join(parts)}"


class HubServer(ThreadingHTTPServer):
    """As much of the hub's HTTP interface as its client uses, for one repository `owner/repo`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.files = files
        self.fetched: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubRequest(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._file(send_body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/owner/repo"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            self._answer(200, json.dumps({"id": "owner/repo", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            self._file(send_body=True)

    def _file(self, *, send_body: bool) -> None:
        name = unquote(self.path.partition("?")[0].removeprefix("/owner/repo/resolve/main/"))
        data = self.server.files.get(name)
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if send_body:
            self.server.fetched.append(name)
        self._answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, send_body=send_body)

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, send_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def server() -> Iterator[HubServer]:
    files = {
        "README.md": b"# hi",
        "m-Q4_K_M-00001-of-00002.gguf": b"GGUF" * 1000,
        "m-Q4_K_M-00002-of-00002.gguf": b"more" * 500,
        "m-Q8_0.gguf": b"GGUF" * 2000,
    }
    with HubServer(files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_through_the_real_client(server: HubServer, tmp_path: Path) -> None:
    """All parts arrive, progress counts up to the sum of their sizes, and afterwards the cache answers alone."""
    hub = HuggingFaceHub(endpoint=server.address, cache_dir=tmp_path)
    source = HubSource("owner/repo", "q4_k_m")
    seen: list[tuple[int, int]] = []

    path = resolve(source, hub=hub, allow_download=True, on_progress=lambda *at: seen.append(at))

    assert path.name == "m-Q4_K_M-00001-of-00002.gguf"
    assert path.read_bytes() == b"GGUF" * 1000
    assert path.with_name("m-Q4_K_M-00002-of-00002.gguf").read_bytes() == b"more" * 500
    assert server.fetched == ["m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"]
    assert seen == sorted(seen)
    assert seen[-1] == (6000, 6000)
    assert resolve(source, hub=HuggingFaceHub(endpoint="http://127.0.0.1:9", cache_dir=tmp_path)) == path


def test_a_repository_that_is_not_there(server: HubServer, tmp_path: Path) -> None:
    """The hub's refusal becomes a DownloadFailed that names the repository."""
    hub = HuggingFaceHub(endpoint=server.address, cache_dir=tmp_path)

    with pytest.raises(DownloadFailed, match=r"hf\.co/owner/other could not be listed"):
        resolve(HubSource("owner/other"), hub=hub, allow_download=True)


def test_a_file_that_vanished(server: HubServer, tmp_path: Path) -> None:
    """A file the listing does not have cannot be fetched, and the error names it."""
    hub = HuggingFaceHub(endpoint=server.address, cache_dir=tmp_path)

    with pytest.raises(DownloadFailed, match=r"gone\.gguf could not be downloaded"):
        hub.download("owner/repo", ["gone.gguf"], lambda _done, _total: None)


def test_an_empty_cache_holds_nothing(tmp_path: Path) -> None:
    """A cache that was never written to has no files, and asking creates none."""
    assert HuggingFaceHub(cache_dir=tmp_path).cached_files("owner/repo") == {}
    assert list(tmp_path.iterdir()) == []

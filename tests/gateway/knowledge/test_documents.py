"""Files become text, within bounds, and what is not for reading stays out."""

from pathlib import Path

import pypdf
import pytest

from gateway.knowledge import documents
from gateway.knowledge.documents import find_files, read_bytes, sections_of
from gateway.knowledge.errors import UnreadableFile


def test_files_are_found_in_a_settled_order_without_the_hidden_and_the_linked(tmp_path: Path) -> None:
    """And only those of a kind that can be read."""
    for name in ("b.md", "a.txt", ".hidden.txt", "image.png", "sub/c.html", ".git/config.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "link.txt").symlink_to("/etc/hostname")

    assert [file.name for file in find_files(tmp_path)] == ["a.txt", "b.md", "sub/c.html"]


def test_html_loses_its_markup_and_what_is_not_shown(tmp_path: Path) -> None:
    """Blocks become lines, entities characters."""
    html = (
        "<html><head><title>T</title><style>p{}</style></head><body><nav>menu</nav><h1>Head</h1>"
        "<p>One &amp; two.</p><script>evil()</script><ul><li>x</li><li>y</li></ul></body></html>"
    )
    (section,) = sections_of(tmp_path / "a.html", html.encode())

    assert section.text.split() == ["T", "Head", "One", "&", "two.", "x", "y"]
    assert "\n" in section.text


def test_invisible_characters_go(tmp_path: Path) -> None:
    """Zero-width, bidirectional and private ones could hide something from a reader."""
    (section,) = sections_of(tmp_path / "a.txt", "a\u200bb\u202ec\ue000d\x00e\tf\r\ng".encode())

    assert section.text == "abcde\tf\ng"


def test_a_broken_pdf_is_refused_by_name(tmp_path: Path) -> None:
    """Its reader's own errors stay inside."""
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 nothing")

    with pytest.raises(UnreadableFile, match=r"broken\.pdf: not a readable PDF"):
        sections_of(path, path.read_bytes())


def test_a_pdf_has_a_section_for_each_page(tmp_path: Path) -> None:
    """Also for an empty one, so that the numbers stay right."""
    writer = pypdf.PdfWriter()
    writer.add_blank_page(72, 72)
    writer.add_blank_page(72, 72)
    path = tmp_path / "two.pdf"
    writer.write(path)

    assert [section.page for section in sections_of(path, path.read_bytes())] == [1, 2]


def test_a_file_beyond_the_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its size and the bound."""
    monkeypatch.setattr(documents, "MAX_FILE_BYTES", 3)
    (tmp_path / "a.txt").write_text("four")

    with pytest.raises(UnreadableFile, match="4 bytes are more than the 3"):
        read_bytes(tmp_path / "a.txt")


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than half indexed."""
    monkeypatch.setattr(documents, "MAX_FILES", 1)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("x")

    with pytest.raises(UnreadableFile, match="more than 1 files"):
        list(find_files(tmp_path))

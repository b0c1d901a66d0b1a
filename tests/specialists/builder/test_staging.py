"""Files that appear together or not at all."""

from pathlib import Path

import pytest

from specialists.builder.staging import staged


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_appear_when_all_are_done(tmp_path: Path) -> None:
    """Until the end there are only hidden temporary files; then only the real ones."""
    targets = [tmp_path / "a.gguf", tmp_path / "b.json"]

    with staged(targets) as temporary:
        for path in temporary.values():
            path.write_text("new")
        during = names(tmp_path)

    assert all(name.startswith(".") and name.endswith(".partial") for name in during)
    assert names(tmp_path) == ["a.gguf", "b.json"]
    assert targets[1].read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_everything_as_it_was(error: type[BaseException], tmp_path: Path) -> None:
    """What stood there before is untouched, and nothing else remains, whatever ended the work."""
    target = tmp_path / "a.gguf"
    target.write_text("old")

    def write() -> None:
        with staged([target, tmp_path / "b.json"]) as temporary:
            temporary[target].write_text("new")
            raise error

    with pytest.raises(error):
        write()

    assert names(tmp_path) == ["a.gguf"]
    assert target.read_text() == "old"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Nothing is made for it, and the sibling that could be made is gone again."""
    with pytest.raises(FileNotFoundError), staged([tmp_path / "a", tmp_path / "none" / "b"]):
        pass

    assert names(tmp_path) == []


def test_permissions_are_the_umasks(tmp_path: Path) -> None:
    """Others may read what they could have read had it been written directly."""
    plain = tmp_path / "plain"
    plain.write_text("x")

    with staged([tmp_path / "a"]):
        pass

    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode

"""Files that appear together, or not at all.

Each is written under a temporary name in its own folder and renamed once all are complete. Whatever goes wrong (an
error, a full disk, Ctrl-C) the temporary files are removed and what stood there before stays.
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[Mapping[Path, Path]]:
    """The temporary path of each target, which exists and is empty; on leaving without an error, all are renamed.

    Only SIGKILL or a crash of the machine leaves temporary files behind: they are hidden and end in `.partial`.
    """
    temporary = {target: target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial") for target in targets}
    try:
        for path in temporary.values():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # with the umask's permissions
        yield temporary
        for target, path in temporary.items():
            path.replace(target)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)

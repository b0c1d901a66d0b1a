"""The Modelfiles that come with the product, one for each domain; they work from an installed wheel as well."""

import re
from functools import cache
from importlib.resources import files

from modelfiles.errors import ModelfileError
from modelfiles.modelfile import Modelfile, parse

_SUFFIX = ".Modelfile"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@cache
def builtin_names() -> tuple[str, ...]:
    """The names `builtin` knows, sorted."""
    names = (entry.name for entry in files("modelfiles").iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def builtin(name: str) -> Modelfile:
    """The Modelfile of that name, such as "math". Raises ModelfileError with the known names."""
    if not _NAME.fullmatch(name) or name not in builtin_names():
        known = ", ".join(builtin_names())
        raise ModelfileError(f"there is no built-in Modelfile {name[:80]!r}; the built-in ones are {known}")
    text = (files("modelfiles") / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    return parse(text, source=f"built-in Modelfile {name!r}")

"""Reads a Dockerfile into stages and instructions, with its variables filled in. Runs nothing.

Understands what ours uses: FROM … AS, ARG, ENV, RUN, COPY, WORKDIR, USER and the instructions that only describe.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DESCRIBING = {"VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
KNOWN = DESCRIBING | {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER"}
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>\w+))")


@dataclass(frozen=True, slots=True)
class Instruction:
    """`text` is all that follows the keyword, as it stands in the file; `line` is where it begins."""

    keyword: str
    text: str
    line: int


@dataclass(slots=True)
class Stage:
    """`base` is an image or the name of an earlier stage."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, keyword: str) -> list[Instruction]:
        return [each for each in self.instructions if each.keyword == keyword]

    def last(self, keyword: str) -> str | None:
        """What the last instruction of this kind says, None without one."""
        found = self.all(keyword)
        return found[-1].text if found else None


def instructions(text: str) -> Iterator[Instruction]:
    """Each instruction with its continuation lines joined. Raises ValueError for a keyword that is not known here."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") or (not parts and not line.strip()):
            continue
        first = first if parts else number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            keyword, _, rest = " ".join(parts).partition(" ")
            if keyword not in KNOWN:
                raise ValueError(f"line {first}: {keyword} is not understood here")
            yield Instruction(keyword, rest.strip(), first)
            parts = []


def stages(text: str, arguments: Mapping[str, str]) -> list[Stage]:
    """The stages in order; `arguments` are those of `docker build --build-arg`, before the file's own defaults."""
    shared: dict[str, str] = {}
    found: list[Stage] = []
    for each in instructions(text):
        if each.keyword == "FROM":
            base, _, name = filled(each.text, shared).partition(" AS ")
            found.append(Stage(base.strip(), name.strip() or str(len(found))))
        elif found:
            found[-1].instructions.append(each)
        else:  # only ARG may stand before the first stage
            shared |= argument(each, arguments)
    return found


def needed(all_stages: list[Stage]) -> list[Stage]:
    """The stages that the last one is made of, in the file's order."""
    by_name = {stage.name: stage for stage in all_stages}
    wanted, todo = {all_stages[-1].name}, [all_stages[-1]]
    while todo:
        stage = todo.pop()
        sources = [stage.base, *(source for copy in stage.all("COPY") if (source := copied(copy)[0]))]
        fresh = [by_name[name] for name in sources if name in by_name and name not in wanted]
        wanted |= {each.name for each in fresh}
        todo += fresh
    return [stage for stage in all_stages if stage.name in wanted]


def argument(instruction: Instruction, arguments: Mapping[str, str]) -> dict[str, str]:
    """The variable that an ARG declares, as given or by default."""
    name, _, default = instruction.text.partition("=")
    return {name: arguments.get(name, " ".join(shlex.split(default)))}


def environment(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that an ENV sets."""
    pairs = (word.partition("=") for word in shlex.split(instruction.text))
    return {name: filled(value, variables) for name, _, value in pairs}


def copied(instruction: Instruction) -> tuple[str | None, list[str], str]:
    """Of a COPY: the stage it copies from (None: the build context), the sources, and the target."""
    words = shlex.split(instruction.text)
    flags = [word for word in words if word.startswith("--")]
    *sources, target = [word for word in words if not word.startswith("--")]
    stage = next((flag.removeprefix("--from=") for flag in flags if flag.startswith("--from=")), None)
    return stage, sources, target


def command(text: str) -> list[str]:
    """The words of an ENTRYPOINT, a CMD or a HEALTHCHECK's CMD in JSON form."""
    words: list[str] = json.loads(text[text.index("[") :])
    return words


def filled(text: str, variables: Mapping[str, str]) -> str:
    """`text` with $NAME and ${NAME} replaced; what is not set is empty."""
    return _VARIABLE.sub(lambda found: variables.get(found["braced"] or found["plain"], ""), text)

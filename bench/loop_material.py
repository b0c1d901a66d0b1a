"""Repetition that is legitimate, for `bench.loop_false_alarms`: found on this machine, or made from seeds.

Each answer is what an assistant might rightly write: records of a corpus, source files, licences, and generated
tables, lists, dumps, arrays, verse and ordered repetition. Nothing here knows the loop guard.
"""

import json
import random
import string
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_LICENCES = Path("/usr/share/common-licenses")
_NAMES = ("Ada", "Bela", "Chen", "Dora", "Emil", "Farah", "Gita", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mona")
_TOWNS = ("Aarhus", "Brno", "Cádiz", "Delft", "Essen", "Faro", "Graz", "Hull", "Izmir", "Jena", "Kiel", "Lund")
_WORDS = ("harbour", "lamp", "river", "copper", "winter", "garden", "signal", "letter", "mirror", "ladder", "engine")


@dataclass(frozen=True, slots=True)
class Answer:
    """`prompt` matters only where it orders repetition; `is_constrained`: a JSON schema shaped the answer."""

    text: str
    prompt: str = ""
    is_constrained: bool = False


Source = Callable[[], Iterator[Answer]]


def corpora(folder: Path) -> dict[str, Source]:
    """One source for each `*.jsonl` in `folder`; every record's "text" is an answer."""

    def records(file: Path) -> Iterator[Answer]:
        with file.open(encoding="utf-8") as lines:
            yield from (Answer(json.loads(line)["text"]) for line in lines)

    return {f"corpus {file.stem}": partial(records, file) for file in sorted(folder.glob("*.jsonl"))}


def found() -> dict[str, Source]:
    """Python's own sources, bare and in fences, its tests, and licence texts."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(library.rglob("*.py")) if "site-packages" not in file.parts]
    tests = [file for file in files if {"test", "tests", "idle_test"} & set(file.parts)]
    sources = [file for file in files if file not in set(tests)]
    licences = sorted({*_LICENCES.glob("*"), *Path(sysconfig.get_path("purelib")).glob("*.dist-info/**/LICEN[CS]E*")})
    return {
        "python sources": lambda: (Answer(_read(file)) for file in sources),
        "… in code fences": lambda: (Answer(f"Here it is:\n\n```python\n{_read(file)}\n```\n") for file in sources),
        "python's own tests": lambda: (Answer(_read(file)) for file in tests),
        "licences": lambda: (Answer(_read(file)) for file in licences if file.is_file()),
    }


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def generated(answers: int = 40, seed: int = 1234) -> dict[str, Source]:
    """`answers` of each form; the same for the same seed."""

    def of(make: Callable[[random.Random], Answer]) -> Source:
        return lambda: (make(random.Random(f"{make.__name__} {seed} {index}")) for index in range(answers))

    makers = (
        json_list, json_same, csv_rows, log_lines, markdown_table, test_matrix, hex_dump, zero_array, number_matrix,
        rules_and_boxes, sql_inserts, unit_tests, html_list, bottles, cumulative_rhyme, refrain_song, times_table,
        spelled_out, ordered_words, ordered_lines, ordered_digits, broken_bytes, itinerary,
    )  # fmt: skip
    return {make.__name__.replace("_", " "): of(make) for make in makers}


def fenced(text: str, language: str = "") -> str:
    return f"Here it is:\n\n```{language}\n{text}\n```\n"


def json_list(random: random.Random) -> Answer:
    """Like objects, new content."""
    people = [
        {"id": number, "name": random.choice(_NAMES), "city": random.choice(_TOWNS), "age": random.randint(18, 90),
         "email": f"{random.choice(_WORDS)}{number}@example.com", "active": random.random() < 0.8, "tags": []}
        for number in range(random.randint(20, 80))
    ]  # fmt: skip
    text = json.dumps(people, indent=random.choice([None, 2, 4]), ensure_ascii=False)
    is_constrained = random.random() < 0.5
    return Answer(text if is_constrained else fenced(text, "json"), is_constrained=is_constrained)


def json_same(random: random.Random) -> Answer:
    """Like objects that differ in a number only, or in nothing."""
    cell = {"x": 0, "y": 0, "kind": "empty"} if random.random() < 0.5 else {"value": None, "ok": True}
    cells = [cell if random.random() < 0.5 else cell | {"row": number} for number in range(random.randint(8, 24))]
    text = json.dumps(cells, indent=random.choice([None, 2]))
    return Answer(text, is_constrained=True) if random.random() < 0.5 else Answer(fenced(text, "json"))


def csv_rows(random: random.Random) -> Answer:
    rows = [
        f"{number},{random.choice(_NAMES)},{random.choice(_TOWNS)},{random.randint(0, 5)},0.0,,N/A"
        for number in range(random.randint(30, 150))
    ]
    text = "\n".join(["id,name,town,visits,balance,note,code", *rows])
    return Answer(text if random.random() < 0.5 else fenced(text, "csv"))


def log_lines(random: random.Random) -> Answer:
    lines = []
    for second in range(random.randint(40, 150)):
        time = f"2026-03-{1 + second // 60:02d} 12:{second // 60:02d}:{second % 60:02d}.{random.randint(0, 999):03d}"
        event = random.choice(
            ["GET /healthz 200", "GET /healthz 200", f"POST /v1/chat/completions {random.choice([200, 429])}"]
        )
        lines.append(f"{time} INFO gateway request {event} in {random.randint(1, 400)} ms")
    return Answer("\n".join(lines) if random.random() < 0.5 else fenced("\n".join(lines)))


def markdown_table(random: random.Random) -> Answer:
    columns = random.randint(3, 12)
    rows = ["| " + " | ".join(random.choice(_WORDS) for _ in range(columns)) + " |", "|---" * columns + "|"]
    for _ in range(random.randint(5, 40)):
        rows.append(
            "| " + " | ".join(random.choice(["—", "yes", "no", "0", "n/a", "12 %"]) for _ in range(columns)) + " |"
        )
    return Answer("The comparison:\n\n" + "\n".join(rows) + "\n")


def test_matrix(random: random.Random) -> Answer:
    columns = random.randint(3, 8)
    rows = [f"| case {number} | " + " | ".join(["pass"] * columns) + " |" for number in range(random.randint(8, 40))]
    return Answer(
        "\n".join(
            ["| case | " + " | ".join(f"py3.{n}" for n in range(columns)) + " |", "|:--" * columns + "|:--|", *rows]
        )
    )


def hex_dump(random: random.Random) -> Answer:
    lines = []
    for offset in range(0, 16 * random.randint(8, 40), 16):
        data = bytes(16) if random.random() < 0.6 else random.randbytes(16)
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
        lines.append(f"{offset:08x}  {data[:8].hex(' ')}  {data[8:].hex(' ')}  |{shown}|")
    return Answer(fenced("\n".join(lines)))


def zero_array(random: random.Random) -> Answer:
    count = random.randint(32, 240)
    value = random.choice(["0", "0.0", "0x00", "None", "false", '""'])
    return Answer(fenced(f"static const data[{count}] = {{" + ", ".join([value] * count) + "};", "c"))


def number_matrix(random: random.Random) -> Answer:
    size = random.randint(4, 16)
    rows = [", ".join("1" if row == column else "0" for column in range(size)) for row in range(size)]
    return Answer("The identity matrix is\n\n" + "\n".join(f"[{row}]," for row in rows) + "\n")


def rules_and_boxes(random: random.Random) -> Answer:
    parts = []
    for _ in range(random.randint(4, 12)):
        width = random.randint(20, 100)
        title = random.choice(_WORDS)
        rule = random.choice("=-_*~#.─═█░") * width
        parts.append(f"{rule}\n{title.center(width)}\n{rule}\n\n┌{'─' * width}┐\n│{' ' * width}│\n└{'─' * width}┘\n")
    return Answer("\n".join(parts))


def sql_inserts(random: random.Random) -> Answer:
    rows = [
        f"INSERT INTO orders (id, customer, town, status) VALUES ({number}, '{random.choice(_NAMES)}', "
        f"'{random.choice(_TOWNS)}', 'open');"
        for number in range(random.randint(20, 60))
    ]
    return Answer(fenced("\n".join(rows), "sql"))


def unit_tests(random: random.Random) -> Answer:
    cases = [
        f"    def test_{first}_{second}(self):\n        calculator = Calculator()\n"
        f"        self.assertEqual(calculator.add({first}, {second}), {first + second})\n"
        for first, second in {(random.randint(0, 99), random.randint(0, 99)) for _ in range(random.randint(10, 30))}
    ]
    return Answer(fenced("class TestCalculator(unittest.TestCase):\n" + "\n".join(cases), "python"))


def html_list(random: random.Random) -> Answer:
    items = [
        f'      <li class="item"><a href="#">{random.choice(_WORDS)}</a></li>' for _ in range(random.randint(10, 40))
    ]
    return Answer(fenced("<ul>\n" + "\n".join(items) + "\n</ul>", "html"))


def bottles(random: random.Random) -> Answer:
    """The traditional counting song."""
    verses = [
        f"{n} bottles of beer on the wall,\n{n} bottles of beer.\nTake one down, pass it around,\n"
        f"{n - 1} bottles of beer on the wall.\n"
        for n in range(random.randint(10, 99), 2, -1)
    ]
    return Answer("\n".join(verses))


def cumulative_rhyme(random: random.Random) -> Answer:
    """A rhyme in which each verse repeats all before it."""
    gifts = [f"{random.choice(_WORDS)} from {town}," for town in random.sample(_TOWNS, 10)]
    verses = []
    for day in range(1, len(gifts) + 1):
        told = "\n".join(f"a {gift}" for gift in reversed(gifts[:day]))
        verses.append(f"On day {day} of the fair my neighbour gave to me\n{told}\nand a song for the wandering sea.\n")
    return Answer("\n".join(verses))


def refrain_song(random: random.Random) -> Answer:
    refrain = (
        "Turn, little wheel, turn and turn again,\nover the meadow and back through the rain.\n"
        "La la la, la la la, la la la la,\n"
    )
    verses = [
        "".join(
            f"The {random.choice(_WORDS)} of {random.choice(_TOWNS)} was {random.choice(['old', 'gold', 'cold'])},\n"
            for _ in range(4)
        )
        for _ in range(random.randint(4, 10))
    ]
    return Answer("\n".join(f"{verse}\n{refrain * random.choice([1, 1, 2])}" for verse in verses))


def times_table(random: random.Random) -> Answer:
    number = random.randint(2, 30)
    return Answer("\n".join(f"{number} × {factor} = {number * factor}" for factor in range(1, random.randint(20, 100))))


def spelled_out(random: random.Random) -> Answer:
    """The same sentence with another number or name each time."""
    lines = [
        f"On day {day} {random.choice(_NAMES)} walked {random.randint(1, 30)} km and slept in {random.choice(_TOWNS)}."
        for day in range(1, random.randint(20, 60))
    ]
    return Answer(random.choice([" ", "\n"]).join(lines))


def ordered_words(random: random.Random) -> Answer:
    word, count = random.choice(["la", "ha", "banana", "no", "please"]), random.randint(20, 300)
    return Answer(random.choice([" ", ", ", "\n"]).join([word] * count), prompt=f"Write '{word}' {count} times.")


def ordered_lines(random: random.Random) -> Answer:
    line, count = f"I will not put {random.choice(_WORDS)}s into the {random.choice(_WORDS)}.", random.randint(10, 100)
    numbered = random.random() < 0.5
    lines = [f"{number}. {line}" if numbered else line for number in range(1, count + 1)]
    return Answer("\n".join(lines), prompt=f'Please write the sentence "{line}" {count} times!')


def ordered_digits(random: random.Random) -> Answer:
    period = "".join(random.choice(string.digits) for _ in range(random.choice([1, 3, 6])))
    count = random.randint(50, 800)
    return Answer("0." + (period * count)[:count], prompt=f"Compute the fraction to {count} places.")


def broken_bytes(random: random.Random) -> Answer:
    lines = [
        random.choice(["�", "?", "\u200b", "😀", "ÿ"]) * random.randint(3, 40) for _ in range(random.randint(5, 20))
    ]
    return Answer("The file holds:\n\n" + "\n".join(lines))


def itinerary(random: random.Random) -> Answer:
    """A list whose items share a form."""
    items = [
        f"{day}. **{random.choice(_TOWNS)}**: see the {random.choice(_WORDS)} museum, then the "
        f"{random.choice(_WORDS)} hall; stay one night."
        for day in range(1, random.randint(10, 40))
    ]
    return Answer("\n".join(items))

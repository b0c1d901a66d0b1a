"""The conversations a bench sends: varied in subject, each unlike the one before from its first word on."""

from collections.abc import Sequence

PROMPTS = (
    "Write a long letter from a lighthouse keeper to a sister who lives in a city far inland.",
    "Explain, step by step and at length, how bread rises and what can go wrong with it.",
    "Describe in detail how a bicycle stays upright, for somebody who repairs them.",
    "Tell the story of a river from its spring to the sea, with every town it passes.",
    "List fifty useful things to keep in a garden shed and say what each of them is for.",
    "Explain the difference between weather and climate with many everyday examples.",
    "Write a detailed guide to planning a walk of five days in the mountains.",
    "Describe how a small library could be organised, from the door to the last shelf.",
    "Explain how compound interest works, with a worked example for each of ten years.",
    "Write the minutes of a village meeting about a bridge that needs mending.",
    "Tell how a watch is taken apart, cleaned and put together again, part by part.",
    "Explain sorting a shelf of books in four different ways, and when each of them is best.",
)

SHARED_SYSTEM = " ".join(
    f"Rule {number}: {rule}"
    for number, rule in enumerate(
        (
            "answer in plain words and whole sentences, without headings.",
            "begin with the answer itself and give the reasons after it.",
            "when something is uncertain, say so and say how it could be found out.",
            "give numbers their units, and dates their year.",
            "prefer one good example to three poor ones.",
            "never invent a source, a name or a quotation.",
            "explain a technical word the first time it is used.",
            "if a question rests on a mistake, name the mistake kindly before going on.",
            "keep the order of events the order of the telling.",
            "when asked for a list, make every entry of the same kind.",
            "do not repeat the question, and do not praise it.",
            "end when everything has been said; do not summarise.",
        )
        * 3,
        start=1,
    )
)


def conversation(index: int, mark: str, prompts: Sequence[str], *, shared_system: bool) -> list[dict[str, str]]:
    """The `index`-th conversation. `mark` opens the user's turn, so that no server has it in its prefix cache."""
    user = {"role": "user", "content": f"[{mark}] {prompts[index % len(prompts)]}"}
    return [{"role": "system", "content": SHARED_SYSTEM}, user] if shared_system else [user]

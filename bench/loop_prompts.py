"""Prompts that make small models repeat themselves: no end in sight, thinking aloud, doubting, counting up.

None of them asks for repetition: whatever is said twice is said by the model's own fault.
"""

_WAYS = (
    "List one hundred facts about {}. Number them, and do not stop before you have all of them.",
    "Write a very long and detailed essay about {}. Go on for as long as you can.",
    "Think aloud, step by step, about {}. Check every step again before you go on, and reconsider whenever in doubt.",
    "What exactly is {}? Examine the question from every side, object to each answer, and only then conclude.",
    "Tell me everything there is to know about {}, in complete sentences, without leaving anything out.",
    "Write a conversation between two friends about {} that goes on for many pages.",
    "Make a list of all the different kinds of {} that you can think of, with a sentence about each.",
    "Write a long poem about {} in many stanzas, each about another side of it.",
    "Explain {} to a child, then to a student, then to a professor, then to a king, then to a farmer, and so on.",
    "Plan a year with {}: say for each week what is to be done, and why.",
)
_SUBJECTS = (
    "the number seventeen",
    "bicycles",
    "rivers",
    "the moon",
    "bread",
    "sorting algorithms",
    "friendship",
    "small gardens",
    "old clocks",
    "probability",
    "the sea",
    "learning a language",
)
PROMPTS = tuple(way.format(subject) for way in _WAYS for subject in _SUBJECTS)

"""Takes away what people and programs wrap around a question, so that the question decides and not its wrapping.

Order matters: blocks a harness inserts, then pasted logs, then greetings and role prefixes, then length. Everything
is decided on the text alone and without regard to case, so the same question in capitals gives the same answer.
When nothing would be left, the text stays as it was: "hello" is a message too.
"""

import re
from dataclasses import dataclass

HEAD_CHARS = 1400
TAIL_CHARS = 500
LOG_SAMPLE_CHARS = 240  # of a pasted log, when the question points at it

_HARNESS_TAGS = (
    "system-reminder|system_reminder|tool_result|tool_results|tool_output|tool_use|tool_call|function_results|"
    "function_calls|environment_details|environment_context|local-command-stdout|command-message|command-name|"
    "bash-stdout|bash-stderr|ide_selection|ide_opened_file|user_info|editable_region|attached_files"
)
_HARNESS = re.compile(rf"<(?P<tag>{_HARNESS_TAGS})\b[^>]*>.*?(?:</(?P=tag)>|\Z)", re.IGNORECASE | re.DOTALL)
_TOOL_BLOCK = re.compile(
    r"^\[(?:tool (?:output|result|call)[^\]\n]*|system reminder[^\]\n]*)\][^\n]*\n(?:[^\n]+\n?)*",
    re.IGNORECASE | re.MULTILINE,
)

_GREETING = (
    r"(?:hi|hii+|hello|hey|heya|hiya|howdy|greetings|yo|good (?:morning|afternoon|evening|day)"
    r"|dear (?:assistant|ai|sir|all))"
    r"(?: there| everyone| all| friend| assistant| team| folks| again| bot| ai)?(?=\W|$)"
)
_ASKS_HERE = r"(?=\s*[?.!,:;–—-]|\s*\n)"  # the request ends here: it names no subject of its own
_COURTESY = (
    r"(?:(?:just |i have )?(?:a |one )?(?:quick|small|short|simple) (?:question|one|request)(?: for you)?"
    r"(?! (?:of|about|on)\b)"
    r"|(?:but |and )?i have a question(?: for you)?(?=\s*[,:;.!–—-])"
    r"|(?:i )?hope (?:you(?:'re| are)|this finds you|all is) (?:doing )?(?:well|good|great|fine|ok|okay)(?: today)?"
    r"|sorry to bother you|excuse me|if you don'?t mind|when you have (?:a )?(?:moment|minute|time)"
    r"|(?:could|can|would|will) you (?:please |kindly |possibly )?(?:help|assist) me(?: out)?"
    r"(?: with (?:this|that|something|a question|the following|a problem|my question|this one)"
    rf"(?: (?:question|problem|one|task))?)?(?: please)?{_ASKS_HERE}"
    r"|i(?: would|'d) (?:really )?(?:appreciate|love|like) (?:your |some )?help"
    rf"(?: with (?:this|that|something|the following))?{_ASKS_HERE}"
    rf"|help me(?: out)?(?: with (?:this|something|the following))?{_ASKS_HERE}"
    rf"|(?:and )?answer (?:the following|this)(?: question)?{_ASKS_HERE}"
    rf"|think (?:carefully|step by step)(?: and (?:then )?answer)?{_ASKS_HERE}"
    r"|(?:system|user|human)(?=:\s)"
    rf"|i need (?:your |some )?help(?: with (?:this|something|the following))?(?: please)?{_ASKS_HERE}"
    r"|(?:could|can|would|will) you (?:please|kindly)|would you mind"
    r"|i(?: was|'m| am) (?:just )?wondering (?:if|whether) you (?:could|can)"
    r"|i was (?:just )?wondering(?=\s*[,:;–—-])"
    r"|i would be (?:very |so )?(?:grateful|thankful) for (?:an answer to this|your help|any help)"
    r"|thanks? (?:you )?(?:in advance )?for your (?:help|time)"
    r"|please|kindly|pls|plz|thanks in advance|thank you in advance|many thanks)(?=\W|$)"
)
_OPENING = re.compile(rf"^[\s,.;:!?–—\-]*(?:{_GREETING}|{_COURTESY})[\s,.;:!?–—\-]*", re.IGNORECASE)
_CLOSING = re.compile(
    r"[\s,.;:!–—\-]*(?:please|pls|plz|thanks|thank you|thx|cheers|many thanks|much appreciated)"
    r"(?: so much| very much| a lot| in advance| again| you)*(?P<mark>[\s.!?]*)$",
    re.IGNORECASE,
)

_QUALITY = (
    r"(?:very |highly |extremely |truly )?(?:helpful|useful|friendly|smart|intelligent|experienced|knowledgeable|"
    r"professional|great|world[- ]class|leading|expert|skilled|careful|honest|polite|harmless|concise|seasoned|"
    r"brilliant|patient|trusted)"
)
_ANYBODY = (
    r"(?:ai |language |virtual |digital |chat |personal |domain |subject[- ]matter )*"
    r"(?:assistant|expert|experts|model|chatbot|bot|ai|professional|specialist|helper|tutor|teacher|advisor|consultant|"
    r"person|professor|mentor|guide|instructor|agent|authority)"
)
_ROLE_VERB = (
    r"(?:i want you to act as|act as|act like|pretend (?:to be|you are|that you are)|imagine (?:that )?you are|"
    r"imagine you're|behave (?:as|like)|play the role of|take the role of|assume the role of|you are|you're)"
)
_ANY_ROLE = re.compile(
    rf"^\s*(?:{_ROLE_VERB}|acting as|as|respond as|answer as)"
    rf"\s+(?:an?|my|the|our)\s+(?:(?:{_QUALITY})(?:,? (?:and )?))*{_ANYBODY}"
    r"(?:\s+(?:in|on|of) (?:this|the|your|its|their) (?:field|area|subject|topic|domain|matter)s?)?"
    r"(?:\s+(?:that|who|which|with) [^.!?\n]{0,80})?\s*[.!,:;\n–—-]+\s*",
    re.IGNORECASE,
)
_NAMED_ROLE = re.compile(rf"^\s*{_ROLE_VERB}\s+(?=(?:an?|my|the|our)\s+)", re.IGNORECASE)

_LOG_LINE = re.compile(
    r"^\s*(?:"
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d"  # 2026-01-31 12:00
    r"|\[?\d\d[:/]\d\d[:/]\d{2,4}[ \].,:]"  # 12:00:01
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]* +\d{1,2} \d\d:\d\d"
    r"|\[?(?:trace|debug|info|notice|warn|warning|error|err|fatal|critical)\]?(?:\[|\]|:| {2,}|\t| \[| -)"
    r"|\[ *\d+\.\d+\]"  # kernel ring buffer
    r"|\d{1,3}(?:\.\d{1,3}){3} - "  # access log
    r"|at [\w.$<>]+\([\w.:<> ]*\)|\.\.\. \d+ more|caused by: "  # JVM trace
    r"|file \"[^\"]+\", line \d+|traceback \(most recent call last\)"
    r"|npm err!|#\d+ +0x|0x[0-9a-f]{6,}|\w+\[\d+\]: |level=\w+ |ts=\d"
    r"|\{\"(?:time|ts|timestamp|level|msg)\":"
    r")",
    re.IGNORECASE,
)
_POINTS_AT_LOG = re.compile(
    r"\b(?:log|logs|error|errors|trace|traceback|stack ?trace|output|message|exception|crash(?:ed|es|ing)?|"
    r"fail(?:s|ed|ing|ure)?|warning|this|these|above|below|following|here)\b",
    re.IGNORECASE,
)
_FEW_WORDS = 4
_MANY_WORDS = 12  # a question this long says its topic without the log


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`text` is what is classified; `removed` names what was taken away, for the explanation."""

    text: str
    removed: tuple[str, ...]


def clean(text: str) -> Cleaned:
    """The question inside a message, at most about two thousand characters."""
    removed = []
    for name, step in _STEPS:
        shorter = step(text).strip()
        if shorter and shorter != text.strip():
            removed.append(name)
        text = shorter or text.strip()
    return Cleaned(text, tuple(removed))


def strip_harness(text: str) -> str:
    """Without the reminders and tool results that coding agents put into a user's turn."""
    if "<" not in text and "[" not in text:
        return text
    return _TOOL_BLOCK.sub("", _HARNESS.sub(" ", text))


def strip_logs(text: str) -> str:
    """Without pasted log lines; a sample stays when the question is too short to stand alone or points at them."""
    lines = text.split("\n")
    if len(lines) < 3:
        return text
    is_log = [_LOG_LINE.match(line) is not None for line in lines]
    if sum(is_log) < 3:
        return text
    prose = "\n".join(line for line, log in zip(lines, is_log, strict=True) if not log).strip()
    num_words = len(prose.split())
    if num_words >= _MANY_WORDS or (num_words >= _FEW_WORDS and not _POINTS_AT_LOG.search(prose)):
        return prose
    log = "\n".join(line for line, logged in zip(lines, is_log, strict=True) if logged)
    return f"{prose}\n{log[:LOG_SAMPLE_CHARS]}"


def strip_courtesy(text: str) -> str:
    """Without greetings, requests for help as such, thanks, and roles that anybody could have."""
    for _ in range(6):  # "Hi there! Hope you are well. Quick question: could you please …"
        shorter = _ANY_ROLE.sub("", _OPENING.sub("", text, count=1), count=1)
        if shorter == text or not _says_something(shorter):
            break
        text = shorter
    text = _NAMED_ROLE.sub("", text, count=1)
    without_thanks = _CLOSING.sub(lambda match: "?" if "?" in match["mark"] else "", text)
    return without_thanks if _says_something(without_thanks) else text


def _says_something(text: str) -> bool:
    return re.search(r"\w", text) is not None


def head_and_tail(text: str) -> str:
    """The two ends of a long text: people ask before or after what they paste."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


_STEPS = (
    ("harness blocks", strip_harness),
    ("log lines", strip_logs),
    ("courtesy", strip_courtesy),
    ("middle of a long text", head_and_tail),
)

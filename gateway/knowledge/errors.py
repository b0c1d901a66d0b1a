"""What can go wrong with an index of documents.

KnowledgeError
├── NoIndex           nobody has made one for this specialist
├── EncoderMismatch   it was made with an encoder that is not here; it has to be made anew
└── UnreadableFile    a document cannot be read, or is beyond the bounds; the others are indexed
"""


class KnowledgeError(Exception):
    """Base of all of them; the message names the mend."""


class NoIndex(KnowledgeError):
    pass


class EncoderMismatch(KnowledgeError):
    pass


class UnreadableFile(KnowledgeError):
    pass

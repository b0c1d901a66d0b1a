"""What can go wrong in the supervisor.

SupervisorError
├── InvalidExamples     a file of labelled questions is malformed; names the line and the mend
├── InvalidModel        the model directory is missing, incomplete or of another version
└── MissingExtra        training or another encoder was asked for and its libraries are not installed
"""


class SupervisorError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidExamples(SupervisorError):
    pass


class InvalidModel(SupervisorError):
    pass


class MissingExtra(SupervisorError):
    pass

"""What can go wrong with a Modelfile.

    ModelfileError             the text, or its FROM, is wrong; names the source, the line, the field and the mend
    └── WeightsMissing         the text is right, but the file it names is not there
        ├── NotDownloaded      … because it lives on the hub and downloading was not asked for
        └── DownloadFailed     … because the hub refused it or could not be reached

This package imports no other of ours, so these are not SpecialistErrors; whoever reads Modelfiles on behalf of a
college translates them.
"""


class ModelfileError(Exception):
    """A Modelfile is wrong. The message is complete: it can be shown to people as it stands."""


class WeightsMissing(ModelfileError):
    """What FROM or ADAPTER names is not on this machine."""


class NotDownloaded(WeightsMissing):
    """It can be had by downloading."""


class DownloadFailed(WeightsMissing):
    """Downloading it was tried, and failed."""

"""What can go wrong while a specialist is built.

    BuilderError            base: the work cannot be done as asked; the message names the file or option and the mend
    ├── UnsoundWeights      a norm or scale is not finite, in the parent or in what was written
    └── QuantizeFailed      llama.cpp's quantiser refused or crashed; its own words are in the message

Files that cannot be used raise errors of their own: GgufError (and MoeError under it) and MaskError.
"""


class BuilderError(Exception):
    """Base of the errors that the builder raises on purpose."""


class UnsoundWeights(BuilderError):
    pass


class QuantizeFailed(BuilderError):
    pass

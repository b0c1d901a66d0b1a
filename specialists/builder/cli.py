"""The builder's commands under `coe`, each in a file of its own, `NAME_cli.py`.

Their modules are imported by every `coe …`, so what is heavy (llama.cpp, numpy work) is imported inside the command.
"""

import typer

from specialists.builder.build_cli import build
from specialists.builder.family_cli import family
from specialists.builder.inspect_cli import inspect
from specialists.builder.mask_cli import mask
from specialists.builder.profile_cli import profile
from specialists.builder.quantize_cli import quantize
from specialists.builder.transfer_cli import transfer
from specialists.builder.verify_cli import verify


def register(app: typer.Typer) -> None:
    """Add the builder's commands to `coe`, at its top level."""
    for command in (profile, mask, build, verify, transfer, quantize, inspect, family):
        app.command()(command)

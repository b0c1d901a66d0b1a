"""Performs the Dockerfile's steps for the CPU image without Docker, and tries what comes of them.

    sudo python3 -m deploy.prove_image FOLDER

Each stage is a folder. The base image is Debian's minimal system (debootstrap), RUN happens in a chroot with mounts of
its own, COPY copies. Then the image's command is started in the last stage's tree as the image's user, its health check
run, a question asked, and SIGTERM sent. What this does not show: that the tree is bootable by Docker itself, and that
the base images on Docker Hub equal debootstrap's. Needs root, Linux and debootstrap; knows nothing of the product.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy import dockerfile

REPOSITORY = Path(__file__).resolve().parent.parent
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MIRROR = "http://deb.debian.org/debian"
DEBIAN_IMAGES = {"debian:bookworm-slim": "bookworm"}
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "make", "cmake", "ninja", "ld", "as", "nvcc", "cargo")
DEVICES = "null zero full random urandom"
OWN_MOUNTS = (
    "mount -t proc proc $ROOT/proc",
    "mount -t tmpfs tmpfs $ROOT/dev",
    f"for d in {DEVICES}; do touch $ROOT/dev/$d; mount --bind /dev/$d $ROOT/dev/$d; done",
    "ln -s /proc/self/fd $ROOT/dev/fd",
    "mkdir $ROOT/dev/pts && mount -t devpts -o newinstance,ptmxmode=0666 devpts $ROOT/dev/pts",
    "ln -s pts/ptmx $ROOT/dev/ptmx",
    "mkdir $ROOT/dev/shm && mount -t tmpfs -o mode=1777 tmpfs $ROOT/dev/shm",
)
READY_SECONDS, ANSWER_SECONDS, END_SECONDS = 180, 300, 60
QUESTION = {"model": "auto", "max_tokens": 12, "messages": [{"role": "user", "content": "What is two plus two?"}]}


@dataclass(slots=True)
class Tree:
    """A stage as far as it has been built. `user` is as in USER: a name that the tree knows, or numbers."""

    root: Path
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"

    def inside(self, path: str) -> Path:
        """Where a path of the image lies on this machine."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")


class Builder:
    """`borrowed` maps files and folders of this machine to where steps see them, read-only; `passed` are variables."""

    def __init__(
        self, folder: Path, borrowed: Mapping[Path, str], passed: Mapping[str, str], *, mirror: str = MIRROR
    ) -> None:
        self._folder = folder
        self._borrowed = borrowed
        self._passed = passed
        self._mirror = mirror
        self.trees: dict[str, Tree] = {}

    def build(self, stage: dockerfile.Stage, arguments: Mapping[str, str]) -> Tree:
        tree = self._begin(stage)
        for step in stage.instructions:
            begun = time.monotonic()
            self._perform(step, tree, arguments)
            if step.keyword in ("RUN", "COPY"):
                say(f"{stage.name}: {step.keyword} {step.text[:60]}… {time.monotonic() - begun:.0f} s")
        self.trees[stage.name] = tree
        return tree

    def argv(self, tree: Tree, command: Sequence[str], *, as_user: str, borrow: bool) -> list[str]:
        """The command line that runs `command` inside the tree, with mounts that end with it."""
        mounts = list(OWN_MOUNTS)
        for path, target in self._borrowed.items() if borrow else ():
            make = "mkdir -p" if path.is_dir() else "install -D /dev/null"
            mounts += [f"{make} $ROOT{target}", f"mount --bind {path} $ROOT{target}",
                       f"mount -o remount,bind,ro $ROOT{target}"]  # fmt: skip
        words = [f"{name}={value}" for name, value in (tree.variables | (dict(self._passed) if borrow else {})).items()]
        script = " && ".join([*mounts, 'exec chroot --userspec="$AS" "$ROOT" "$@"'])
        inner = ["/usr/bin/env", "-i", f"--chdir={tree.workdir}", *words, *command]
        variables = ["env", f"ROOT={tree.root}", f"AS={as_user}"]
        return [*variables, "unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "step", *inner]

    def _begin(self, stage: dockerfile.Stage) -> Tree:
        root = self._folder / stage.name
        source = self.trees.get(stage.base)
        base = source.root if source is not None else self._debian(stage.base)
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        if source is None:
            return Tree(root)
        return Tree(root, dict(source.variables), {}, source.workdir, source.user)

    def _debian(self, image: str) -> Path:
        base = self._folder / f"base-{DEBIAN_IMAGES[image]}"
        if not base.exists():
            say(f"{image}: debootstrap")
            partial = base.with_suffix(".partial")
            command = ["debootstrap", "--variant=minbase", DEBIAN_IMAGES[image], str(partial), self._mirror]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            partial.rename(base)
        return base

    def _perform(self, step: dockerfile.Instruction, tree: Tree, arguments: Mapping[str, str]) -> None:
        known = tree.arguments | tree.variables
        if step.keyword == "ARG":
            tree.arguments |= dockerfile.argument(step, arguments)
        elif step.keyword == "ENV":
            tree.variables |= dockerfile.environment(step, known)
        elif step.keyword == "WORKDIR":
            tree.workdir = os.path.join(tree.workdir, step.text)
            tree.inside(".").mkdir(parents=True, exist_ok=True)
        elif step.keyword == "USER":
            tree.user = step.text
        elif step.keyword == "COPY":
            self._copy(step, tree)
        elif step.keyword == "RUN":
            self._run(step, tree)

    def _run(self, step: dockerfile.Instruction, tree: Tree) -> None:
        for name in ("resolv.conf", "hosts"):  # as Docker does
            shutil.copy(f"/etc/{name}", tree.root / "etc" / name)
        command = ["/bin/sh", "-c", step.text]
        subprocess.run(self.argv(tree, command, as_user=tree.user, borrow=True), check=True, stdin=subprocess.DEVNULL)

    def _copy(self, step: dockerfile.Instruction, tree: Tree) -> None:
        stage, sources, target = dockerfile.copied(step)
        from_root = self.trees[stage].root if stage is not None else REPOSITORY
        to = tree.inside(target)
        for source in sources:
            path = from_root / source.lstrip("/")
            if path.is_dir():
                shutil.copytree(
                    path, to, symlinks=True, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__") if stage is None else None,
                )  # fmt: skip
            else:
                inside = target.endswith("/") or len(sources) > 1 or to.is_dir()
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to / path.name if inside else to)


# ── trying the image ─────────────────────────────────────────────────────────


def prove(stage: dockerfile.Stage, tree: Tree, builder: Builder) -> None:
    """Raises AssertionError, with what is wrong, unless the image serves as it should."""
    found = [name for name in COMPILERS for folder in tree.variables["PATH"].split(":")
             if (tree.root / folder.lstrip("/") / name).exists()]  # fmt: skip
    assert not found, f"compilers in the last stage: {found}"
    assert user_of(tree).split(":")[0] != "0", "the image runs as root"
    port = free_port()
    tree.variables |= {"COE_PORT": str(port), "COE_HOST": "127.0.0.1"}
    words = [*dockerfile.command(stage.last("ENTRYPOINT") or ""), *dockerfile.command(stage.last("CMD") or "")]
    process = subprocess.Popen(builder.argv(tree, words, as_user=user_of(tree), borrow=False))
    try:
        await_ready(f"http://127.0.0.1:{port}/readyz", process)
        check = dockerfile.command(stage.last("HEALTHCHECK") or "")
        subprocess.run(builder.argv(tree, check, as_user=user_of(tree), borrow=False), check=True)
        say("the health check passes")
        say(f"an answer: {ask(port)!r}")
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "\nUid:\t10001\t" in status, "the gateway does not run as the image's user"
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0, "SIGTERM did not end it with exit code 0"
        say("SIGTERM: exit code 0")
    finally:
        process.kill()
        process.wait()


def user_of(tree: Tree) -> str:
    """uid:gid, from the tree's own list of users."""
    if tree.user[0].isdigit():
        return tree.user
    lines = (tree.root / "etc/passwd").read_text().splitlines()
    fields = next(line.split(":") for line in lines if line.split(":")[0] == tree.user)
    return f"{fields[2]}:{fields[3]}"


def await_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended with {process.returncode} before it was ready"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"not ready after {READY_SECONDS} s")


def ask(port: int) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(QUESTION).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
        answer = json.load(response)
    text: str = answer["choices"][0]["message"]["content"]
    assert text, f"an empty answer: {answer}"
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the trees go; about 3 GB; emptied of earlier ones")
    parser.add_argument(
        "--borrow", action="append", default=[], metavar="PATH[:INSIDE]", help="what the network here needs, read-only"
    )
    parser.add_argument("--pass", dest="passed", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mirror", default=MIRROR, help="Debian's mirror")
    options = parser.parse_args()
    arguments = {"ACCEL": "cpu"}
    stages = dockerfile.needed(dockerfile.stages((REPOSITORY / "Dockerfile").read_text(), arguments))
    passed = dict(pair.partition("=")[::2] for pair in options.passed)
    pairs = [each.partition(":") for each in options.borrow]
    borrowed = {Path(source): target or source for source, _, target in pairs}
    options.folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        shutil.rmtree(options.folder / stage.name, ignore_errors=True)
    builder = Builder(options.folder.resolve(), borrowed, passed, mirror=options.mirror)
    for stage in stages:
        tree = builder.build(stage, arguments)
    num_bytes = sum(path.lstat().st_size for path in tree.root.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"the last stage holds {num_bytes / 2**20:.0f} MiB")
    prove(stages[-1], tree, builder)
    say("proven")


if __name__ == "__main__":
    main()

"""Run the Dockerfile's own steps in a fresh Debian root, where there is no Docker engine.

    sudo python3 .ci/check_image.py --target cpu

Needs Linux, root and debootstrap. Reads the Dockerfile, carries out every instruction of the
stages that the target is made of, then runs the result as Docker would: process 1, numeric user,
read-only root, a tmpfs on /tmp, models mounted. Passes if the HEALTHCHECK succeeds within its
start period and SIGTERM ends the server with exit code 0.

PIP_* variables reach the build steps, as build arguments would. `--bind` shows a folder of this
machine inside, read-only (own certificates; a folder of wheels that PIP_FIND_LINKS names).

The base is Debian's Python in place of the python image's: the same version and libc, another
build. What this cannot check: the registry's base image itself, and GPUs.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"


@dataclass
class Stage:
    """One FROM of the Dockerfile, and what its instructions have set so far."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    root: Path | None = None
    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    last: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> dict[str, Stage]:
    """Read stages by name; comments and continued lines as Docker treats them."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = Stage(base)
        elif current is not None:
            current.steps.append((word, rest))
    return stages


class Builder:
    """Carries stages out below one scratch folder."""

    def __init__(self, stages: dict[str, Stage], scratch: Path, binds: list[Path]) -> None:
        self.stages = stages
        self.scratch = scratch
        self.binds = binds

    def build(self, name: str) -> Stage:
        """Carry out a stage and those it is made of, each once."""
        stage = self.stages[name]
        if stage.root is not None:
            return stage
        stage.root = self.scratch / name
        if stage.base in self.stages:
            parent = self.build(stage.base)
            stage.args, stage.env = dict(parent.args), dict(parent.env)
            stage.workdir, stage.last = parent.workdir, dict(parent.last)
            _command("cp", "-a", str(parent.root), str(stage.root))
        else:
            _command("cp", "-a", str(self._debian()), str(stage.root))
            stage.env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        for word, rest in stage.steps:
            print(f"[{name}] {word} {rest[:100]}", flush=True)
            self._carry_out(stage, stage.root, word, rest)
        return stage

    def _debian(self) -> Path:
        root = self.scratch / "debian"
        if not root.exists():
            print(f"[base] debootstrap {SUITE}", flush=True)
            _command("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root))
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        return root

    def _carry_out(self, stage: Stage, root: Path, word: str, rest: str) -> None:
        known = stage.args | stage.env
        expanded = re.sub(r"\$\{(\w+)\}", lambda found: known.get(found[1], ""), rest)
        match word:
            case "ARG":
                name, _, default = expanded.partition("=")
                stage.args[name] = os.environ.get(name, default)
            case "ENV":
                pairs = (part.partition("=") for part in shlex.split(expanded))
                stage.env.update({key: value for key, _, value in pairs})
            case "WORKDIR":
                stage.workdir = expanded
                (root / expanded.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(stage, root, expanded.split())
            case "RUN":
                pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
                shell = ["/bin/sh", "-c", f"cd {stage.workdir} && {rest}"]
                subprocess.run(self.inside(root, shell, pip | known, "0:0"), check=True)
            case "USER" | "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
                stage.last[word] = expanded
            case "LABEL" | "EXPOSE" | "STOPSIGNAL":
                pass
            case _:
                raise ValueError(f"Dockerfile: this check does not know {word}: teach it")

    def _copy(self, stage: Stage, root: Path, words: list[str]) -> None:
        origin = PROJECT
        if words[0].startswith("--from="):
            built = self.build(words.pop(0).removeprefix("--from=")).root
            origin = built if built is not None else PROJECT
        *sources, target = words
        goal = root / os.path.join(stage.workdir, target).lstrip("/")
        for source in sources:
            path = origin / source.lstrip("/")
            if path.is_dir():
                unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
                ignore = unwanted if origin == PROJECT else None
                shutil.copytree(path, goal, symlinks=True, dirs_exist_ok=True, ignore=ignore)
            else:
                into = goal / path.name if target.endswith("/") else goal
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into)

    def inside(
        self, root: Path, command: list[str], env: dict[str, str], user: str, *, sealed: str = ""
    ) -> list[str]:
        """The command line that runs `command` in `root`, with namespaces of its own.

        Args:
            user: uid:gid.
            sealed: shell lines run before the root is left, after the mounts.
        """
        at = shlex.quote(str(root))
        lines = ["set -e", f"mount --bind {at} {at}", f"mount --rbind /dev {at}/dev"]
        lines += [f"mount -t proc proc {at}/proc"]
        for path in self.binds:
            inner = root / str(path).lstrip("/")
            inner.mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind -o ro {shlex.quote(str(path))} {shlex.quote(str(inner))}")
        variables = [f"{key}={value}" for key, value in env.items()]
        leave = ["chroot", f"--userspec={user}", str(root), "env", "-i", *variables, *command]
        script = "\n".join([*lines, sealed, f"exec {shlex.join(leave)}"])
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]


def check(builder: Builder, target: str, models: Path) -> None:
    """Build `target`, run it as Docker would, wait for health, end it with SIGTERM."""
    image = builder.build(target)
    if image.root is None:
        raise ValueError(f"Dockerfile: stage {target} was not built")
    for tool in ("gcc", "make", "git"):
        if shutil.which(tool, path=f"{image.root}/usr/bin:{image.root}/usr/local/bin"):
            raise RuntimeError(f"{tool} is in the final stage")
    (image.root / "models").mkdir(exist_ok=True)
    at = shlex.quote(str(image.root))
    seal = (
        f"mount --bind -o ro {shlex.quote(str(models))} {at}/models\n"
        f"mount -t tmpfs tmpfs {at}/tmp\nmount -o remount,ro,bind {at} {at}"
    )
    command = json.loads(image.last["ENTRYPOINT"]) + json.loads(image.last["CMD"])
    user = image.last["USER"]
    started = time.monotonic()
    # It listens beyond loopback: without a key it must not start.
    keyed = image.env | {"PUSHFORWARD_API_KEYS": secrets.token_hex(16)}
    server = subprocess.Popen(builder.inside(image.root, command, keyed, user, sealed=seal))
    try:
        _wait_until_healthy(builder, image, server)
        print(f"healthy after {time.monotonic() - started:.1f} s", flush=True)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        code = server.wait(timeout=60)
    finally:
        server.kill()
        server.wait()
    if code != 0:
        raise RuntimeError(f"SIGTERM: expected exit code 0, got {code}")
    print(f"SIGTERM: exit code 0; {target} passed")


def _wait_until_healthy(builder: Builder, image: Stage, server: subprocess.Popen[bytes]) -> None:
    options, _, probe = image.last["HEALTHCHECK"].partition("CMD ")
    found = re.search(r"--start-period=(\d+)s", options)
    deadline = time.monotonic() + (float(found[1]) if found else 0.0)
    root = image.root or Path("/")
    command = builder.inside(root, json.loads(probe), image.env, image.last["USER"])
    while subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {server.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError("not healthy within the start period")
        time.sleep(0.5)


def _command(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Read the arguments and check one target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--target", default="cpu", help="stage to check: cpu, slim or gpu (default: cpu)"
    )
    parser.add_argument("--bind", action="append", default=[], type=Path, metavar="FOLDER")
    parser.add_argument("--models", default=PROJECT / "models/zoo", type=Path)
    arguments = parser.parse_args()
    missing = [tool for tool in ("debootstrap", "unshare", "chroot") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and {', '.join(missing) or 'nothing else'}")
    with tempfile.TemporaryDirectory(prefix="image-") as scratch:
        stages = parse((PROJECT / "Dockerfile").read_text("utf-8"))
        check(Builder(stages, Path(scratch), arguments.bind), arguments.target, arguments.models)


if __name__ == "__main__":
    main()

"""An environment's packages, beside the cluster's own: resolved and installed by uv, once a node.

What the cluster has and the environment allows is used as it is. Whatever else is needed goes into
an *overlay*: a virtual environment whose packages come first, and behind them the cluster's, so
that Ray and inferay are there at their exact versions. An environment that needs nothing more is
the cluster's own Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from inferay.engine.scoring.environments.spec import NO_CONDA, EnvironmentSpec, conda_program
from inferay.errors import InvalidInput, UserCodeError

#: Where overlays are kept on this machine, unless `INFERAY_ENVIRONMENTS` names a folder.
PLACE = "INFERAY_ENVIRONMENTS"

#: A build takes no longer: what has not been downloaded by then is too large for a deployment.
BUILD_S = 300.0

#: Of what uv says, so many lines are kept.
LINES_MAX = 40

#: What a build must not see: the workspace's and Ray's secrets.
_HIDDEN = ("INFERAY_", "RAY_")

_OURS = ("inferay", "ray")


def ensure(spec: EnvironmentSpec, place: Path | None = None) -> Path:
    """Return the Python that has the environment; blocks until it is built.

    Processes that ask for the same build it once. What is built already costs a look.

    Args:
        spec: What is declared.
        place: Folder of overlays on this machine; by default the machine's own.

    Raises:
        InvalidInput: It wants another Python than the cluster's.
        UserCodeError: It cannot be resolved or installed; the details are uv's last lines.
    """
    check_python(spec.python)
    is_here = all(_is_satisfied(Requirement(one)) for one in spec.requirements)
    if is_here and not spec.conda:
        return Path(sys.executable)
    place = place or default_place()
    place.mkdir(parents=True, exist_ok=True)
    folder = place / _key(spec)
    if not (folder / "ready").is_file():
        with _locked(place / f"{folder.name}.lock"):
            if not (folder / "ready").is_file():
                _build(spec, folder)
    told = (folder / "ready").read_text()
    return Path(told) if told else Path(sys.executable)


def default_place() -> Path:
    """Return the folder of this machine's overlays."""
    if os.environ.get(PLACE):
        return Path(os.environ[PLACE])
    cache_dir = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_dir) / "inferay" / "environments"


def check_python(wanted: str) -> None:
    """Check that an environment's Python is the cluster's.

    Raises:
        InvalidInput: It is another one.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    is_other = wanted not in ("", here) if wanted[:1].isdigit() else (
        wanted and not Requirement(f"python{wanted}").specifier.contains(
            ".".join(map(str, sys.version_info[:3])))
    )
    if is_other:
        raise InvalidInput(
            f"the environment wants Python {wanted}, and the cluster runs {here}, which Ray asks "
            f"all its processes to be; say python={here} in the conda file, or leave it out",
            code="PythonDiffers", target="environment",
        )


def _build(spec: EnvironmentSpec, folder: Path) -> None:
    """Make the overlay aside, and rename it: a build that is killed leaves nothing half made."""
    shutil.rmtree(folder, ignore_errors=True)
    prefix = _conda_prefix(spec, folder) if spec.conda else None
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder.parent) as aside:
        wanted = _resolve(spec, Path(aside)) if spec.requirements else {}
        missing = [
            f"{name} @ {version}" if "://" in version else f"{name}=={version}"
            for name, version in wanted.items() if _installed().get(name) != version
        ]
        made = Path(aside) / "overlay"
        if missing or prefix is not None:
            _install(missing, spec, made, Path(aside), prefix)
        else:
            made.mkdir()
        # An environment's programs name its path: so it is made anew where it will be.
        python = folder / "bin" / "python" if missing or prefix is not None else ""
        (made / "ready").write_text(str(python))
        os.replace(made, folder)


def _resolve(spec: EnvironmentSpec, aside: Path) -> dict[str, str]:
    """Return the versions of all that the environment needs beside what the cluster satisfies."""
    parsed = [Requirement(one) for one in spec.requirements]
    satisfied = [one for one in parsed if _is_satisfied(one)]
    rest = [text for text, one in zip(spec.requirements, parsed, strict=True)
            if one not in satisfied]
    platform = list(_needs(_OURS))
    kept = [str(one) for one in satisfied] + list(_needs(one.name for one in satisfied))
    try:
        return _compile(rest, [*platform, *kept], spec, aside)
    except UserCodeError:
        if not satisfied:
            raise
        # Perhaps what the cluster has does not go with the rest: other versions of it may.
        return _compile(list(spec.requirements), platform, spec, aside)


def _compile(
    requirements: list[str], constraints: list[str], spec: EnvironmentSpec, aside: Path
) -> dict[str, str]:
    (aside / "wanted.in").write_text("\n".join(requirements) + "\n")
    (aside / "constraints.txt").write_text("\n".join(constraints) + "\n")
    # uv prefers the versions that stand in the file that it writes.
    solved = aside / "solved.txt"
    solved.write_text("".join(f"{name}=={one}\n" for name, one in _installed().items()))
    _uv(
        ["pip", "compile", "wanted.in", "--constraints", "constraints.txt", "--python",
         sys.executable, "--no-header", "--no-annotate", "--output-file", "solved.txt",
         *spec.options],
        aside, "its packages do not go together with each other, or with Ray and inferay",
    )
    found: dict[str, str] = {}
    for line in solved.read_text().splitlines():
        name, _, version = line.partition("==")
        if version:
            found[canonicalize_name(name)] = version.split(";")[0].strip()
        elif " @ " in line:
            found[canonicalize_name(line.split(" @ ")[0])] = line.split(" @ ", 1)[1].strip()
    return found


def _conda_prefix(spec: EnvironmentSpec, folder: Path) -> Path:
    """Install conda's packages beside the overlay, at their place: they name it in their files.

    Raises:
        InvalidInput: There is no conda here.
        UserCodeError: It does not have them.
    """
    program = conda_program()
    if program is None:
        raise InvalidInput(
            f"the environment needs {', '.join(spec.conda)}: {NO_CONDA}", code="CondaOnly",
            target="environment",
        )
    prefix = folder.with_name(f"{folder.name}-conda")
    shutil.rmtree(prefix, ignore_errors=True)
    python = f"python={sys.version_info.major}.{sys.version_info.minor}"
    _run(
        [program, "create", "--yes", "--quiet", "--prefix", str(prefix), "--override-channels",
         *(f"--channel={one}" for one in spec.channels), python, *spec.conda],
        folder.parent, "conda cannot install its packages",
    )
    return prefix


def _install(
    missing: list[str], spec: EnvironmentSpec, made: Path, aside: Path, prefix: Path | None
) -> None:
    (aside / "missing.txt").write_text("\n".join(missing) + "\n")
    _uv(["venv", "--quiet", "--relocatable", "--python", sys.executable, str(made)], aside,
        "its virtual environment cannot be made")
    if missing:
        _uv(
            ["pip", "install", "--python", str(made / "bin" / "python"), "--no-deps",
             "--requirements", "missing.txt", *spec.options],
            aside, "its packages cannot be installed",
        )
    [packages] = made.glob("lib/python*/site-packages")
    behind = _cluster_paths()
    if prefix is not None:   # last: Ray and inferay run with the cluster's own packages
        behind += map(str, prefix.glob("lib/python*/site-packages"))
        (packages / "zz_conda.pth").write_text(
            "import os; os.environ['PATH'] = os.pathsep.join("
            f"(os.environ.get('PATH', os.defpath), {str(prefix / 'bin')!r}))\n"
        )
    (packages / "zz_cluster.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in behind)
    )


def _uv(words: list[str], folder: Path, said: str) -> None:
    from uv import find_uv_bin

    _run([find_uv_bin(), *words], folder, said)


def _run(command: list[str], folder: Path, said: str) -> None:
    """Run what installs; its last lines are the error's details.

    Raises:
        UserCodeError: It failed, or took too long.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_HIDDEN)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=_indexes() | environment, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=BUILD_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UserCodeError(
            f"the environment was not built within {BUILD_S:g} s; build what takes longer into "
            "the cluster's own Python",
            code="EnvironmentFailed", details=_last_lines(error.stdout or b""),
        ) from None
    if done.returncode != 0:
        raise UserCodeError(
            f"the environment cannot be built: {said}", code="EnvironmentFailed",
            details=_last_lines(done.stdout),
        )


def _last_lines(said: str | bytes) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-LINES_MAX:])


def _indexes() -> dict[str, str]:
    """Return uv's variables for where pip finds packages on this machine: uv reads pip's not."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=BUILD_S, check=False,
    )
    found: dict[str, str] = {}
    names = {"index-url": "UV_DEFAULT_INDEX", "find-links": "UV_FIND_LINKS"}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        variable = names.get(name.rpartition(".")[2])
        if variable and value:
            found[variable] = value.strip("'")
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def _installed() -> dict[str, str]:
    """Return the versions of the cluster's packages; none without one, for it is half removed."""
    return {
        canonicalize_name(one.name): one.version for one in metadata.distributions()
        if one.name and one.version
    }


def _is_satisfied(wanted: Requirement, known: frozenset[str] = frozenset()) -> bool:
    """Return whether the cluster has a package as it is wanted, with all that its extras need."""
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    name = canonicalize_name(wanted.name)
    version = _version(name)
    is_here = wanted.url is None and version is not None
    if not is_here or not wanted.specifier.contains(str(version), prereleases=True):
        return False
    if not wanted.extras or name in known:
        return True
    return all(
        _is_satisfied(one, known | {name}) for extra in wanted.extras
        for one in _needs_of(name) if one.marker and one.marker.evaluate({"extra": extra})
        and not one.marker.evaluate({"extra": ""})
    )


def _needs(names: Iterable[str]) -> Iterator[str]:
    """Yield what packages of the cluster, and those that they need, ask of the others' versions."""
    waiting = [canonicalize_name(name) for name in names]
    seen = set(waiting)
    for ours in sorted(seen & set(_OURS)):
        if ours != "inferay":   # which no index has
            yield f"{ours}=={_installed()[ours]}"
    while waiting:
        for one in _needs_of(waiting.pop()):
            if one.marker is not None and not one.marker.evaluate({"extra": ""}):
                continue
            name = canonicalize_name(one.name)
            if one.specifier:
                yield f"{name}{one.specifier}"
            if name not in seen and name in _installed():
                seen.add(name)
                waiting.append(name)


def _needs_of(name: str) -> list[Requirement]:
    found = []
    for text in metadata.requires(name) or []:
        try:
            found.append(Requirement(text))
        except InvalidRequirement:   # an old package's own way of writing; it asks for nothing then
            continue
    return found


def _cluster_paths() -> list[str]:
    """Return where the cluster's own packages are."""
    names = ("site-packages", "dist-packages")
    return [path for path in sys.path if os.path.basename(path.rstrip("/")) in names]


def _key(spec: EnvironmentSpec) -> str:
    """Return the name of what the spec comes to on this cluster: another one for other packages."""
    packages = sorted(
        name for path in _cluster_paths() for name in os.listdir(path)
        if name.endswith((".dist-info", ".egg-info"))
    )
    facts = [spec.digest, sys.version, sys.prefix, packages]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; its file stays."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""What to compare, on which Pythons, and the table at the end."""

import dataclasses
import glob
import os
import pathlib
import platform
import subprocess
import sys

import pytest
from samplers import Tools

ROOT = pathlib.Path(__file__).parents[2]
CACHE = pathlib.Path(os.environ.get("PYSPY_CACHE", pathlib.Path.home() / ".cache/pyspy-operator"))


@dataclasses.dataclass
class Python:
    path: str
    name: str
    version: tuple
    free_threaded: bool


def pytest_addoption(parser):
    group = parser.getgroup("agreement")
    group.addoption("--runner", default=str(ROOT / "build/release/runner/pyspy-runner"))
    group.addoption("--py-spy", help="default: the one that hack/fetch-pyspy has fetched")
    group.addoption("--python", action="append", help="interpreter; default: all of the machine")
    group.addoption("--full", action="store_true", help="every program on every Python, longer")
    group.addoption("--table", type=pathlib.Path, help="file that the table's lines go to as well")


def fetched():
    found = sorted(CACHE.glob(f"py-spy-*-{platform.machine()}"))
    return str(found[-1]) if found else None


@pytest.fixture(scope="session")
def tools(pytestconfig):
    py_spy = pytestconfig.getoption("--py-spy") or fetched()
    if not py_spy:
        pytest.skip("py-spy: hack/fetch-pyspy has not fetched it")
    return Tools(pytestconfig.getoption("--runner"), py_spy)


def ask(path):
    """None for what is no CPython from 3.8 on."""
    script = (
        "import sys; print(sys.implementation.name, *sys.version_info[:3],"
        " 't' in sys.abiflags, sys._base_executable)"
    )
    run = subprocess.run([path, "-c", script], capture_output=True, text=True)
    if run.returncode:
        return None
    implementation, major, minor, micro, free_threaded, base = run.stdout.split(maxsplit=5)
    version = int(major), int(minor)
    if implementation != "cpython" or version < (3, 8):
        return None
    free = free_threaded == "True"
    name = f"{major}.{minor}.{micro}" + ("t" if free else "")
    return os.path.realpath(base.strip()), Python(path, name, version, free)


def find_pythons(config):
    """Each interpreter once: this one comes before Debian's, whose environment it is of."""
    places = config.getoption("--python") or [
        sys.executable,
        *sorted(glob.glob(str(pathlib.Path.home() / ".pyenv/versions/3.*/bin/python3"))),
        *sorted(glob.glob(str(CACHE / "pythons/*/bin/python3"))),
        "/usr/bin/python3",
        "/usr/local/bin/python3",
    ]
    found = {}
    # What hack/pythons is still making has another name.
    there = (path for path in places if os.path.exists(path) and ".new/" not in path)
    for python in map(ask, there):
        if python:
            found.setdefault(*python)
    return sorted(found.values(), key=lambda p: (p.version, p.path))


def pytest_configure(config):
    config.stash[PYTHONS] = find_pythons(config)
    config.stash[TABLE] = []


PYTHONS = pytest.StashKey()
TABLE = pytest.StashKey()


@pytest.fixture
def table(pytestconfig):
    return pytestconfig.stash[TABLE]


# Not every interpreter has them: without hashes, as a static build comes, the program crashed.
MODULES = {
    "arrays": "import numpy",
    "threads_native": "from hashlib import blake2b, sha1, sha256, sha512",
}


def has_modules(python, program_name):
    command = [python.path, "-c", MODULES.get(program_name, "")]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def short(pythons, name, n):
    """Every program runs on one Python, and on every Python one or two programs."""
    able = [p for p in pythons if not p.free_threaded and has_modules(p, name)]
    return [able[n % len(able)]] if able else pythons[:1]


def pytest_generate_tests(metafunc):
    pythons = metafunc.config.stash[PYTHONS]
    if "program_name" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        pairs = [
            pytest.param(python, name, id=f"{name}-{python.name}")
            for n, name in enumerate(metafunc.module.PROGRAMS)
            for python in (pythons if full else short(pythons, name, n))
        ]
        metafunc.parametrize(("python", "program_name"), pairs)
    elif "python" in metafunc.fixturenames:
        metafunc.parametrize("python", pythons, ids=lambda p: p.name)


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash[TABLE]
    for line in lines:
        terminalreporter.write_line(line)
    if path := config.getoption("--table"):
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

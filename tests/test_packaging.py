"""What is built is complete: the wheel holds all of bpcore and nothing else, and works by itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*_cache", "*.egg-info")


def shipped_files(source: Path) -> set[str]:
    """Return every file that must be in the wheel, by its installed name."""
    wanted = set()
    for folder, package in ((source / "bpcore", "bpcore"), (source / "kernels", "bpcore/kernels")):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in {".pyc", ".md"}:
                wanted.add(f"{package}/{path.relative_to(folder).as_posix()}")
    return wanted


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; a failure shows all of it."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: building leaves nothing in the repository, and finds nothing left over there."""
    copy = tmp_path_factory.mktemp("source") / "bpcore"
    copy.mkdir()
    for name in ("bpcore", "kernels", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=NOT_SOURCE)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    """The folder with the sdist and the wheel, the wheel built from the sdist.

    Without isolation: the build requirement, setuptools, is part of the extra ``test``.
    """
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        source / "dist",
        source,
        cwd=source.parent,
    )
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def fresh_environment(folder: Path) -> Path:
    """Make an environment that borrows the dependencies of the running one; return its Python.

    Fetching the dependencies again would prove nothing about bpcore, so a ``.pth`` file lends them. An
    editable install of bpcore is not lent with them: it is an import hook started by a ``.pth`` file of its
    own, and such files are not read in a folder that another one added; a test below makes sure.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    target = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    lent = [path for path in sys.path if path.endswith("site-packages")]
    Path(target, "lent.pth").write_text("".join(f"{path}\n" for path in lent), "utf-8")
    return python


def install(python: Path, *arguments: str | Path) -> None:
    """Install into another environment with this one's pip, from what is on this machine."""
    options = ("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", f"--python={python}", *options, *arguments, cwd=python.parent)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which nothing but the wheel was installed."""
    python = fresh_environment(tmp_path_factory.mktemp("installed"))
    install(python, wheel)
    return python


@pytest.fixture
def elsewhere(tmp_path: Path, cache_dir: Path) -> dict:
    """Keyword arguments for `run`: an empty folder, and nothing of the sources on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {"cwd": tmp_path, "env": environment}


def test_the_wheel_holds_every_file_and_nothing_else(wheel: Path, source: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = shipped_files(source)
    assert "bpcore/py.typed" in wanted
    assert "bpcore/kernels/__init__.py" in wanted
    assert names == wanted


def test_the_wheel_installs_no_top_level_name_but_bpcore(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        (top_level,) = (name for name in archive.namelist() if name.endswith("top_level.txt"))
        assert archive.read(top_level).decode().split() == ["bpcore"]
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bpcore"}


def test_the_sdist_holds_sources_tests_and_docs(built: Path, source: Path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name in shipped_files(source):
        assert re.sub("^bpcore/kernels/", "kernels/", name) in names
    assert {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "setup.py"} <= names
    assert {"tests/conftest.py", "docs/index.md"} <= names
    assert not any("__pycache__" in name for name in names)


def test_nothing_comes_from_the_sources(installed: Path, elsewhere: dict):
    out = run(
        installed,
        "-c",
        "import bpcore, bpcore.kernels as k, importlib.util as u\n"
        "print(bpcore.__file__, k.__file__, *bpcore.__path__, *k.__path__, sep='\\n')\n"
        "print(u.find_spec('kernels'), u.find_spec('tests'))",
        **elsewhere,
    ).splitlines()
    prefix = installed.parent.parent.resolve()
    assert len(out) == 5
    for path in out[:4]:
        assert prefix in Path(path).resolve().parents
    assert out[4] == "None None"


def test_an_editable_install_finds_the_kernels(source: Path, tmp_path: Path):
    python = fresh_environment(tmp_path)
    install(python, "--editable", source)
    # In the root of the sources, `bpcore` is found before the import hook is asked.
    for folder in (tmp_path, source):
        out = run(python, "-c", "import bpcore.kernels; print(bpcore.kernels.__file__)", cwd=folder)
        assert Path(out.strip()).resolve() == (source / "kernels" / "__init__.py").resolve()


def test_every_module_of_the_wheel_can_be_imported(installed: Path, source: Path, elsewhere: dict):
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in shipped_files(source)
        if name.endswith(".py") and not name.endswith("__main__.py")
    )
    run(
        installed,
        "-W",
        "error",
        "-c",
        f"import importlib\nfor m in {modules}: importlib.import_module(m)",
        **elsewhere,
    )


def test_a_network_learns_in_the_installed_package(installed: Path, elsewhere: dict):
    out = run(
        installed,
        "-c",
        "import numpy as np, bpcore as bp\n"
        "X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)\n"
        "Y = np.array([[0], [1], [1], [0]], dtype=float)\n"
        "net = bp.MLP([2, 8, 1], activation='tanh', output='sigmoid', seed=1)\n"
        "adam = bp.Adam(0.05)\n"
        "bp.train(net, X, Y, loss='binary_cross_entropy', optimizer=adam, batch_size=4, epochs=300)\n"
        "print(*np.round(net.predict(X)).astype(int).ravel())",
        **elsewhere,
    )
    assert out.split()[-4:] == ["0", "1", "1", "0"]


def test_the_command_of_the_installed_package(installed: Path, elsewhere: dict):
    command = installed.with_name("bpcore.exe" if os.name == "nt" else "bpcore")
    version = run(command, "--version", **elsewhere)
    assert read_version() in version
    assert run(installed, "-m", "bpcore", "--version", **elsewhere) == version


def read_version() -> str:
    """Return ``__version__`` as it stands in the source."""
    for node in ast.parse((ROOT / "bpcore" / "_version.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return ast.literal_eval(node.value)
    raise AssertionError("bpcore/_version.py assigns no __version__")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_metadata_of_the_wheel(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert f"\nVersion: {read_version()}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.M)) == set(project()["optional-dependencies"])


def requirements(extra: str) -> set[str]:
    """Return the distributions of an extra, those of the extras that it includes with them."""
    found: set[str] = set()
    for requirement in project()["optional-dependencies"][extra]:
        name = re.split(r"[^\w.-]", requirement)[0].lower()
        if name == "bpcore":
            for inner in re.findall(r"[\w-]+", requirement.partition("[")[2]):
                found |= requirements(inner)
        else:
            found.add(name)
    return found


def test_the_test_extra_brings_neither_cuda_nor_torch():
    assert {"pytest", "hypothesis", "mpmath", "scikit-learn"} <= requirements("test")
    for name in requirements("test") | requirements("all") | requirements("lint"):
        assert not name.startswith(("torch", "cupy", "nvidia", "cuda"))
    assert requirements("witness") == {"torch"}
    assert "cupy-cuda13x" in requirements("nvrtc")


def test_the_cuda_extras_exclude_each_other():
    assert "cupy-cuda12x" in requirements("cuda12x")
    assert "cupy-cuda13x" in requirements("cuda13x")
    assert not {name for name in requirements("cuda12x") & requirements("cuda13x") if name.startswith("cupy")}


def test_every_extra_that_an_error_recommends_exists():
    known = set(project()["optional-dependencies"])
    named = set()
    for path in [*(ROOT / "bpcore").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "missing_extra":
                values = {keyword.arg: keyword.value for keyword in node.keywords}
                extra = node.args[1] if len(node.args) > 1 else values["extra"]
                named.add((path.name, ast.literal_eval(extra)))
        named |= {(path.name, extra) for extra in re.findall(r"bpcore\[(\w+)\]", text)}
    assert named, "no error recommends an extra: the search is broken"
    assert {(file, extra) for file, extra in named if extra not in known} == set()

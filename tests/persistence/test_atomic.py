"""Files are replaced whole or not at all, whatever fails in the middle."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpcore.errors import ModelFileError
from bpcore.persistence.atomic import write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file semantics")


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_new_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    for data in (b"first", b"", b"second" * 100_000):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert entries(tmp_path) == ["m.bin"]


@posix
def test_permissions_of_new_and_old_files(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    before = os.umask(0o027)
    try:
        write_atomically(path, b"x")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        write_atomically(path, b"y")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@posix
def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "m.bin", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert entries(tmp_path / "real") == ["m.bin"]


def fails_with(code: int) -> Any:
    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "close_after_part"])
@pytest.mark.parametrize("existed", [True, False])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, existed: bool) -> None:
    path = tmp_path / "m.bin"
    if existed:
        path.write_bytes(b"old")
    if call == "close_after_part":
        real_write, calls = os.write, []

        def part_then_full(descriptor: int, data: bytes) -> int:
            calls.append(1)
            if len(calls) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_write(descriptor, bytes(data)[:3])

        monkeypatch.setattr(os, "write", part_then_full)
    else:
        monkeypatch.setattr(os, call, fails_with(errno.ENOSPC))
    state = "unchanged" if existed else "not created"
    with pytest.raises(ModelFileError, match=rf"cannot write .*m\.bin: No space left on device; the file is {state}"):
        write_atomically(path, b"new content")
    monkeypatch.undo()
    assert entries(tmp_path) == (["m.bin"] if existed else [])
    if existed:
        assert path.read_bytes() == b"old"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, bytes(data)[:2]))
    write_atomically(tmp_path / "m.bin", b"seven b")
    assert (tmp_path / "m.bin").read_bytes() == b"seven b"


def test_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert entries(tmp_path) == ["m.bin"]
    assert path.read_bytes() == b"old"


def test_failing_sync_of_the_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomically(tmp_path / "m.bin", b"new")
    assert (tmp_path / "m.bin").read_bytes() == b"new"


@posix
def test_the_content_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    def replace(source: Any, target: Any) -> None:
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "m.bin", b"new")
    assert events == ["sync file", "rename", "sync folder"]


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot write .*: it is a folder; give the name of a file"):
        write_atomically(tmp_path, b"x")
    with pytest.raises(ModelFileError, match=r"there is no folder .*nowhere; create it first"):
        write_atomically(tmp_path / "nowhere" / "m.bin", b"x")


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ModelFileError, match=r"no permission to write in"):
            write_atomically(tmp_path / "m.bin", b"x")
    finally:
        tmp_path.chmod(0o700)


@posix
def test_real_limit_on_the_size_of_files(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")
    script = (
        "import resource, sys\n"
        "from bpcore.errors import ModelFileError\n"
        "from bpcore.persistence.atomic import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_atomically(sys.argv[1], b'x' * 10000)\n"
        "except ModelFileError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "File too large; the file is unchanged" in result.stdout
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["m.bin"]

"""Limits on the threads of BLAS, and how many threads may compute: from several threads of a program."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import scipy.linalg.cython_blas  # noqa: F401  (a library that can be limited)
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from bpcore import cores
from bpcore.blas_limit import blas_limit
from bpcore.cores import usable_cores, usable_threads


def blas() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def in_a_thread(work: object, **arguments: object) -> None:
    thread = threading.Thread(target=work, kwargs=arguments)  # type: ignore[arg-type]
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    if not blas():
        pytest.skip("no BLAS that can be limited")
    with blas_limit(2):
        yield


def test_the_smallest_limit_holds() -> None:
    with blas_limit(1):
        assert blas() == {1}
        with blas_limit(3):
            assert blas() == {1}
        with blas_limit(None):
            assert blas() == {1}
    assert blas() == {2}


def test_an_exception_gives_the_threads_back() -> None:
    with pytest.raises(ValueError, match="inside"), blas_limit(1):
        raise ValueError("inside")
    assert blas() == {2}


def test_limits_of_threads_that_overlap() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas_limit(1):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with blas_limit(3):
        thread.start()
        assert entered.wait(60)
        assert blas() == {1}
    assert blas() == {1}
    leave.set()
    thread.join()
    assert blas() == {2}


def test_a_thread_that_set_blas_before_does_not_stand_in_the_way() -> None:
    """Newer versions of threadpoolctl would silently ignore whoever comes second."""
    found: list[set[int]] = []

    def limited() -> None:
        with blas_limit(1):
            found.append(blas())

    leave, entered = threading.Event(), threading.Event()

    def keep() -> None:
        threadpool_limits(2, user_api="blas")
        entered.set()
        leave.wait(60)

    keeper = threading.Thread(target=keep)
    keeper.start()
    assert entered.wait(60)
    in_a_thread(limited)
    leave.set()
    keeper.join()
    assert found == [{1}]
    assert blas() == {2}


def test_others_can_set_blas_afterwards() -> None:
    with blas_limit(1):
        in_a_thread(threadpool_limits, limits=3, user_api="blas")
        assert blas() == {3}
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        library.set_num_threads(2)


@pytest.mark.parametrize("name", ["BPCORE_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("3", 3), ("2,1", 2), ("0", 8), ("many", 8), ("", 8), ("99", 8)]
)
def test_variables_limit_the_usable_threads(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: int
) -> None:
    for variable in ("BPCORE_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    monkeypatch.setattr(cores, "cpu_quota", lambda text: None)
    monkeypatch.setenv(name, text)
    assert usable_threads() == expected


def test_a_quota_limits_the_usable_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    for quota, expected in ((2.5, 2), (0.5, 1), (16.0, 8)):
        monkeypatch.setattr(cores, "cpu_quota", lambda text, quota=quota: quota)
        assert usable_threads() in (expected, 8)  # 8 where the system has no such file
    assert usable_cores() >= 1

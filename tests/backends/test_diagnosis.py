"""The diagnosis: facts about this machine, and checks that are fed with machines that are not here."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from bpcore.backends import checks, diagnosis
from bpcore.cores import cpu_quota

AVX512 = ["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"]
AVX2 = ["avx", "avx2", "fma"]


def openblas(core: str, threads: int = 2) -> list[dict[str, Any]]:
    return [{"library": "openblas", "version": "0.3.30", "core_type": core, "threads": threads}]


def only(findings: list[dict[str, str]]) -> dict[str, str]:
    """The one finding, complete."""
    (finding,) = findings
    assert set(finding) == {"what", "cost", "repair"}
    assert all(finding.values())
    return finding


# -------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("core", ["Haswell", "Zen", "Nehalem", "Sandybridge", "Prescott"])
def test_an_old_core_type_set_by_the_variable(core: str) -> None:
    finding = only(checks.check_core_type({"OPENBLAS_CORETYPE": core}, openblas(core), AVX512))
    assert finding["what"] == f"OPENBLAS_CORETYPE={core} makes OpenBLAS use {core}"
    assert "half speed" in finding["cost"]
    assert finding["repair"] == "unset OPENBLAS_CORETYPE"


def test_a_processor_that_openblas_does_not_know() -> None:
    finding = only(checks.check_core_type({}, openblas("Zen"), AVX512))
    assert finding["what"] == "OpenBLAS took this processor for Zen"
    assert "OPENBLAS_CORETYPE=SkylakeX" in finding["repair"]
    finding = only(checks.check_core_type({}, openblas("Prescott"), AVX2))
    assert "OPENBLAS_CORETYPE=Haswell" in finding["repair"]


@pytest.mark.parametrize(
    ("core", "flags", "library"),
    [
        ("SkylakeX", AVX512, "openblas"),
        ("Cooperlake", AVX512, "openblas"),
        ("Haswell", AVX2, "openblas"),
        ("Zen", [*AVX2, "avx512f"], "openblas"),  # a part of AVX-512 is not enough for SkylakeX
        ("SomethingNew", AVX512, "openblas"),
        ("Haswell", [], "openblas"),
        ("neoversev1", ["asimd", "sve"], "openblas"),
        ("Haswell", AVX512, "mkl"),
    ],
)
def test_core_types_that_are_right_or_unknown(core: str, flags: list[str], library: str) -> None:
    blas = [{**openblas(core)[0], "library": library}]
    assert checks.check_core_type({"OPENBLAS_CORETYPE": core}, blas, flags) == []


def test_openblas_cache_size() -> None:
    assert "OPENBLAS_L2_SIZE=64" in only(checks.check_openblas_cache({"OPENBLAS_L2_SIZE": "64"}))["what"]
    assert checks.check_openblas_cache({}) == []


@pytest.mark.parametrize(
    ("environment", "cores", "whats"),
    [
        ({}, 8, []),
        ({"OMP_NUM_THREADS": "4"}, 8, []),
        ({"OMP_NUM_THREADS": "1"}, 8, ["OMP_NUM_THREADS=1"]),
        ({"OMP_NUM_THREADS": "1"}, 1, []),
        ({"OMP_NUM_THREADS": "8,1"}, 8, []),
        ({"OPENBLAS_NUM_THREADS": "16"}, 8, ["OPENBLAS_NUM_THREADS=16, but 8 cores are usable"]),
        ({"NUMBA_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"}, 1, ["NUMBA_NUM_THREADS=2, but 1 cores are usable"]),
        ({"OMP_NUM_THREADS": "many"}, 8, []),
    ],
)
def test_thread_variables(environment: dict[str, str], cores: int, whats: list[str]) -> None:
    assert [finding["what"] for finding in checks.check_thread_limits(environment, cores)] == whats


def test_pools_larger_than_the_cores() -> None:
    assert checks.check_pool_sizes(openblas("Zen", 8), 8) == []
    finding = only(checks.check_pool_sizes(openblas("Zen", 64), 4))
    assert finding["what"] == "openblas has 64 threads, but 4 cores are usable"
    assert finding["repair"] == "export OMP_NUM_THREADS=4"


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("nonsense", None), ("100000 0", None)],
)
def test_reading_the_quota(text: str, quota: float | None) -> None:
    assert cpu_quota(text) == quota


def test_quota_below_the_cores() -> None:
    assert checks.check_quota(None, 8) == []
    assert checks.check_quota(8.0, 8) == []
    finding = only(checks.check_quota(1.5, 8))
    assert finding["what"] == "the container may use 1.5 cores, but libraries see 8"
    assert finding["repair"] == "export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1"
    assert "OMP_NUM_THREADS=1 " in only(checks.check_quota(0.5, 8))["repair"]


def test_several_blas_libraries() -> None:
    assert checks.check_several_blas(openblas("Zen") * 2) == []
    finding = only(checks.check_several_blas([*openblas("Zen"), {"library": "mkl"}]))
    assert finding["what"] == "several BLAS libraries are loaded: mkl, openblas"


@pytest.mark.parametrize("layer", ["omp", "tbb"])
def test_threading_layers_that_serve(layer: str) -> None:
    assert checks.check_threading_layers({"workqueue": True, layer: True}, "linux") == []
    assert checks.check_threading_layers({}, "linux") == []


def test_workqueue_alone() -> None:
    layers = {"tbb": False, "omp": False, "workqueue": True}
    assert only(checks.check_threading_layers(layers, "linux"))["repair"] == "pip install tbb"
    assert "libomp" in only(checks.check_threading_layers(layers, "darwin"))["repair"]


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"NUMBA_DISABLE_JIT": "1"}, ["NUMBA_DISABLE_JIT=1"]),
        ({"NUMBA_DISABLE_JIT": "0", "NUMBA_OPT": "3", "NUMBA_ENABLE_AVX": "1"}, []),
        ({"NUMBA_OPT": "0", "NUMBA_ENABLE_AVX": "0"}, ["NUMBA_OPT=0", "NUMBA_ENABLE_AVX=0"]),
        ({"NUMBA_BOUNDSCHECK": "1"}, ["NUMBA_BOUNDSCHECK=1"]),
        ({}, []),
    ],
)
def test_numba_settings(environment: dict[str, str], names: list[str]) -> None:
    assert [finding["what"] for finding in checks.check_numba_settings(environment)] == names


def test_clashing_wheels() -> None:
    assert checks.check_wheels(["cupy-cuda12x"], 12040) == []
    finding = only(checks.check_wheels(["cupy-cuda12x", "cupy-cuda13x"], 12040))
    assert finding["repair"] == 'pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install "bpcore[cuda12x]"'


@pytest.mark.parametrize(
    ("driver", "extra"), [(11080, "cuda12x"), (12090, "cuda12x"), (13000, "cuda13x"), (0, "cuda13x")]
)
def test_a_gpu_without_cupy(driver: int, extra: str) -> None:
    finding = only(checks.check_idle_gpu(True, False, [], driver))
    assert finding["what"] == "a GPU seems to be present, but CuPy is not installed"
    assert finding["repair"] == f'pip install "bpcore[{extra}]"'


def test_a_gpu_with_a_broken_cupy_and_no_gpu() -> None:
    assert "cannot run" in only(checks.check_idle_gpu(True, False, ["cupy-cuda13x"], 13000))["what"]
    assert checks.check_idle_gpu(True, True, ["cupy-cuda13x"], 13000) == []
    assert checks.check_idle_gpu(False, False, [], 0) == []


# -------------------------------------------------------------------------------- facts


def test_reading_proc_cpuinfo() -> None:
    text = "processor\t: 0\nmodel name\t: AMD EPYC 9355\nflags\t\t: fpu sse4_2 avx2 fma avx512f\n"
    assert diagnosis.cpu_flags(text) == ["sse4_2", "avx2", "fma", "avx512f"]
    assert diagnosis.cpu_flags("Features\t: fp asimd sve\n") == ["asimd", "sve"]
    assert diagnosis.cpu_flags("") == []
    assert diagnosis._cpu_model(text) == "AMD EPYC 9355"
    assert diagnosis._cpu_model("") != ""


def test_reading_nvidia_smi() -> None:
    text = "NVIDIA H200, 143771, 575.57.08\nOdd, name, [N/A], 575.57.08\nnot a line\n"
    assert diagnosis.smi_gpus(text) == [
        {"name": "NVIDIA H200", "memory": 143771 * 2**20, "driver": "575.57.08"},
        {"name": "Odd, name", "memory": None, "driver": "575.57.08"},
    ]


def test_a_command_that_fails_or_is_absent_is_silent() -> None:
    assert diagnosis._output(["no-such-command-here"]) == ""


def test_variables_that_matter() -> None:
    given = {"BPCORE_SEED": "1", "OMP_NUM_THREADS": "2", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "", "SECRET": "x"}
    assert diagnosis.settings(given) == {"BPCORE_SEED": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}


def test_the_whole_diagnosis_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "64")
    facts = json.loads(json.dumps(diagnosis.diagnose()))
    assert set(facts) == {
        *("bpcore", "python", "platform", "cpu", "backends", "selection", "blas", "threading"),
        *("gpu", "environment", "cupy_wheels", "warnings"),
    }
    assert facts["cpu"]["usable_cores"] >= 1
    assert [status["name"] for status in facts["backends"]] == ["numpy", "numba", "cupy"]
    assert facts["selection"]["name"] in {status["name"] for status in facts["backends"] if status["usable"]}
    assert facts["environment"]["OPENBLAS_L2_SIZE"] == "64"
    assert "OPENBLAS_L2_SIZE=64 overrides the detected cache size" in [w["what"] for w in facts["warnings"]]


def test_a_selection_that_fails_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPCORE_BACKEND", "cupi")
    chosen = diagnosis.diagnose()["selection"]
    assert chosen["name"] is None
    assert chosen["why"].startswith("UnknownNameError: unknown backend 'cupi'")


def test_the_diagnosis_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name.startswith("numba"):
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr("importlib.import_module", without)
    assert diagnosis.threading_facts() == {"layers": {}, "threads": None}

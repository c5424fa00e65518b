"""Every CUDA source and every printed kernel compiles, on machines without a GPU too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpcore.errors import BackendError
from bpcore.functions.program import Program
from bpcore.kernels.cuda import build, source
from bpcore.kernels.cuda.pieces import Layer, print_activations
from tests.kernels import catalogue

Compiler = Callable[[str, str], bytes]


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    """NVRTC as the backend calls it, else nvcc, else a skip that says what to install."""
    try:
        build.compile_with_nvrtc('extern "C" __global__ void probe() {}', "sm_90")
    except ImportError as error:
        if shutil.which("nvcc"):
            return build.compile_with_nvcc
        pytest.skip(f"neither NVRTC ({error}) nor nvcc is here; 'cupy-cuda13x nvidia-cuda-nvrtc' brings NVRTC")
    return build.compile_with_nvrtc


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("unit", sorted(source.UNITS))
def test_units_compile(compiler: Compiler, unit: str, arch: str, dtype: Any) -> None:
    code = compiler(source.unit_source(unit, dtype), arch)
    assert code[:4] == b"\x7fELF"
    expected = {
        "rowwise": [b"softmax_narrow", b"backprop_log_softmax_wide", b"row_hits_wide"],
        "reductions": [b"total", b"sum_squares", b"count_not_finite", b"add_partials", b"column_sums"],
        "gather": [b"take_rows_4", b"take_rows_8", b"take_rows_16"],
        "random": [b"random_bits", b"dropout_mask", b"dropout_part"],
    }
    assert [name for name in expected[unit] if name not in code] == []


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("sm_75", (32, 32, 1)),
        ("sm_80", (64, 32, 1)),
        ("sm_90", (32, 32, 8)),
        ("sm_90", (64, 64, 1)),
        ("sm_90", (64, 32, 2)),
    ],
    ids=str,
)
def test_predictions_compile(compiler: Compiler, shape: tuple[int, int, int], arch: str, dtype: Any) -> None:
    layers = [Layer(Program("h = max(z, 0)"), None), Layer(Program("h = tanh(z)"), None), Layer(None, None, "softmax")]
    code = compiler(source.inference_unit(print_activations(layers).text, dtype, *shape), arch)
    assert b"answer" in code
    assert b"finish_answer" in code


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 8), (4, 32)])
def test_predictions_of_few_samples_compile(compiler: Compiler, rows: int, columns: int, arch: str, dtype: Any) -> None:
    layers = [Layer(Program("h = tanh(z)"), None), Layer(None, None, "log_softmax")]
    code = compiler(source.few_unit(print_activations(layers).text, dtype, rows, columns), arch)
    assert b"answer_few" in code


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize(("below", "outputs"), [(128, 10), (63, 32)])
def test_narrow_ends_compile(compiler: Compiler, below: int, outputs: int, arch: str, dtype: Any) -> None:
    layers = [Layer(Program("h = max(z, 0)"), None), Layer(None, None, "softmax")]
    code = compiler(source.narrow_unit(print_activations(layers).text, dtype, below, outputs), arch)
    assert b"answer_narrow" in code


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_declared_formula_compiles(compiler: Compiler, arch: str, dtype: Any) -> None:
    kernels = catalogue.kernels()
    assert len(kernels) > 50
    # one translation unit: starting the compiler costs more than a kernel
    text = source.translation_unit(dtype, ("scalar", "memory"), *(kernel.text for kernel in kernels))
    code = compiler(text, arch)
    assert [kernel.name for kernel in kernels if kernel.name.encode() not in code] == []


def test_every_operation_of_the_language_compiles(compiler: Compiler) -> None:
    functions = "exp expm1 log log1p sqrt abs sign tanh sin cos erf erfc sigmoid softplus".split()
    lines = {f"r_{name}": f"{name}(x)" for name in functions}
    lines |= {"p": "x**y + x**2 + x**3 + 2**x", "m": "min(x, y) * max(x, 0.5) + clip(x, -1, 1)"}
    lines |= {"c": "where(x > y and not (x >= 2 or y < 1), x/y, -y) + (x if x != y else pi) + (1 if x <= e else 0)"}
    lines |= {"d": "where(x == y, 1e-300, 1e300)"}
    kernel = source.print_elementwise(Program(lines), {"x": "full", "y": "one"})
    for dtype in ("float32", "float64"):
        assert kernel.name.encode() in compiler(kernel.source(dtype), "sm_90")


def test_subnormal_numbers_are_kept(compiler: Compiler) -> None:
    """CuPy's own compilation adds -ftz=true, under which log(1e-40) is minus infinity."""
    if compiler is not build.compile_with_nvrtc:
        pytest.skip("PTX is read through NVRTC only")
    kernel = source.print_elementwise(Program("h = log(z) / z"), {"z": "full"})
    ptx = build.compile_with_nvrtc(kernel.source("float32"), "compute_90").decode()
    assert "fma.rn.f32" in ptx
    assert ".ftz" not in ptx
    assert "div.rn.f32" in ptx
    assert "approx" not in ptx


def test_a_mistake_is_reported_with_the_words_of_the_compiler() -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC comes with CuPy")
    with pytest.raises(BackendError, match=r"NVRTC cannot compile wrong\.cu for sm_90[\s\S]*identifier \"nothing\""):
        build.compile_with_nvrtc("__global__ void k() { nothing; }", "sm_90", "wrong.cu")


def test_nvcc_mistakes_and_absence_are_reported(tmp_path: Path) -> None:
    refuses = tmp_path / "nvcc"
    refuses.write_text("#!/bin/sh\necho no such luck >&2\nexit 2\n")
    refuses.chmod(0o755)
    with pytest.raises(BackendError, match=r"nvcc cannot compile for sm_90:\nno such luck"):
        build.compile_with_nvcc("", "sm_90", str(refuses))


def test_without_nvcc_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendError, match="nvcc is not on the path; install the CUDA toolkit"):
        build.compile_with_nvcc("", "sm_90")


def test_targets() -> None:
    assert build.nvrtc_target(90, (75, 80, 90)) == "sm_90"
    assert build.nvrtc_target(95, (75, 80, 90)) == "compute_90"
    assert build.nvrtc_target(86, (75, 80, 90)) == "compute_80"
    with pytest.raises(BackendError, match=r"compute capability 6\.1.*7\.5 and newer"):
        build.nvrtc_target(61, (75, 80, 90))


class _Cupy:
    """Just enough of CuPy for the loader: modules that remember their code."""

    class _Module:
        def load(self, code: bytes) -> None:
            self.code = code

        def get_function(self, name: str) -> tuple[bytes, str]:
            return self.code, name

    class cuda:
        Module: Any = None

    cuda.Module = _Module


def test_the_loader_compiles_once_and_reuses_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC comes with CuPy")
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    text = 'extern "C" __global__ void a() {}\nextern "C" __global__ void b() {}'
    first = build.KernelLoader(_Cupy, 90)
    code, name = first.function(text, "a")
    assert (first.function(text, "b")[0], name) == (code, "a")
    assert (first.compiled, first.reused) == (1, 0)
    (stored,) = (tmp_path / "cuda").iterdir()
    assert stored.suffix == ".cubin"
    assert stored.read_bytes() == code
    second = build.KernelLoader(_Cupy, 90)
    assert second.function(text, "a")[0] == code
    assert (second.compiled, second.reused) == (0, 1)
    other_device = build.KernelLoader(_Cupy, 80)
    assert other_device.function(text, "a")[0] != code


def test_a_cache_that_cannot_be_written_costs_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="NVRTC comes with CuPy")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path / "file"))
    loader = build.KernelLoader(_Cupy, 90)
    assert loader.function('extern "C" __global__ void a() {}', "a")[0][:4] == b"\x7fELF"


def test_the_cache_folder_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    assert build.cache_folder() == tmp_path / "cuda"
    monkeypatch.delenv("BPCORE_CACHE_DIR")
    assert build.cache_folder().parts[-2:] == ("bpcore", "cuda")

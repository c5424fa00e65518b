"""The pictures of a result: what is drawn, what is said about it, and the file."""

from __future__ import annotations

import math
import sys

import pytest

from bpcore.bench.plot_axes import LOOKS, look
from bpcore.bench.plot_bars import PART_COLOURS
from bpcore.bench.plots import operations, parts, roofline, save_plots, throughput
from bpcore.errors import ConfigurationError, MissingExtraError, ModelFileError
from tests.helpers.sweep_results import ALL_ROWS, BATCHES, GPU, make_operations, make_result, set_status

figure = pytest.importorskip("matplotlib.figure")


def axes():
    return figure.Figure(figsize=(5, 4), layout="constrained").subplots()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def entries(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines(ax, colour, marker="None"):
    return [line for line in ax.lines if line.get_color() == colour and line.get_marker() == marker]


@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("contenders", [("numpy",), ("numpy", "numba"), GPU])
def test_throughput_has_a_line_and_a_band_for_each_contender(contenders, mode):
    network, ax = make_result(contenders, mode=mode)["networks"][0], axes()
    throughput(network, ax)
    assert entries(ax) == list(contenders)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert len(ax.collections) == len(contenders)
    for name in contenders:
        (line,) = lines(ax, look(name)[0])
        expected = [cell["contenders"][name]["samples_per_second"] for cell in network["cells"]]
        assert line.get_xdata().tolist() == list(BATCHES)
        assert line.get_ydata().tolist() == expected


def test_the_band_goes_from_quartile_to_quartile():
    network, ax = make_result(("numpy",), batches=(1, 64))["networks"][0], axes()
    throughput(network, ax)
    times = network["cells"][1]["contenders"]["numpy"]["us_per_step"]
    (path,) = ax.collections[0].get_paths()
    found = {y for x, y in path.vertices if x == 64}
    assert sorted(found) == pytest.approx([64e6 / times["q3"], 64e6 / times["q1"]], rel=1e-12)


def test_statuses_look_different():
    network, ax = set_status(make_result(GPU), ALL_ROWS)["networks"][0], axes()
    said = throughput(network, ax)
    assert entries(ax) == [*GPU, "noisy", "differs", "suspect"]
    (line,) = lines(ax, look("cupy:bf16")[0])
    assert math.isnan(line.get_ydata()[BATCHES.index(256)]), "who differs from the witness is not on the line"
    assert [one.get_xdata() for one in lines(ax, look("cupy:bf16")[0], "x")] == [[256]]
    assert [one.get_xdata() for one in lines(ax, look("cupy")[0], "+")] == [[64]]
    marks = {one.get_xdata()[0]: one for one in lines(ax, look("numpy")[0], "o")}
    assert 4096 not in marks, "what was skipped has no point"
    assert marks[16].get_markerfacecolor() == ax.get_facecolor()
    assert marks[64].get_markerfacecolor() == look("numpy")[0]
    for words in ("Hollow: noisy", "x: differs, not ranked", "+: suspect, not ranked"):
        assert words in said


def test_what_is_not_there_is_not_explained():
    ax = axes()
    said = throughput(make_result()["networks"][0], ax)
    assert "noisy" not in said
    assert "not ranked" not in said
    assert entries(ax) == ["numpy", "numba"]


def test_crossovers_of_the_best_are_marked():
    network, ax = make_result(("numpy", "numba", "cupy"))["networks"][0], axes()
    (found,) = [pair for pair in network["crossovers"] if (pair["contender"], pair["over"]) == ("cupy", "numba")]
    assert found["from_batch"] > 1
    throughput(network, ax)
    # over NumPy both are faster from the first batch size on
    assert [text.strip() for text in texts(ax)] == [f"cupy over numba from {found['from_batch']}"]
    (line,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert list(line.get_xdata()) == [found["from_batch"]] * 2


@pytest.mark.parametrize("batches", [(64,), (100, 128), tuple(2**k for k in range(17))])
def test_few_and_many_batch_sizes(batches):
    network, ax = make_result(batches=batches)["networks"][0], axes()
    throughput(network, ax)
    ax.figure.draw_without_rendering()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels[0] == str(batches[0])
    assert 1 <= len(labels) <= 8
    assert any(label.get_text() for label in ax.get_yticklabels())


def test_a_network_without_any_time():
    names = ("numpy", "numba")
    result = set_status(make_result(), {(batch, name): "skipped" for batch in BATCHES for name in names})
    network, first, second = result["networks"][0], axes(), axes()
    throughput(network, first)
    roofline(result, network, second)
    assert not [line for line in first.lines if len(line.get_xdata())]


def test_roofline_has_the_points_below_the_roofs():
    result, ax = make_result(GPU), axes()
    network = result["networks"][0]
    said = roofline(result, network, ax)
    cell = network["cells"][3]
    points = {
        (one.get_xdata()[0], one.get_ydata()[0]) for one in lines(ax, look("numba")[0], "s") if len(one.get_xdata())
    }
    assert (cell["flops"] / cell["bytes"], cell["contenders"]["numba"]["gflops"]) in points
    assert len(points) == len(BATCHES)
    # memory belongs to the device: both of the processor have the faster copy, and each device says it once
    assert texts(ax) == ["720 TFLOP/s, memory 2.9 TB/s", "370 TFLOP/s", "52 TFLOP/s", "480 GFLOP/s, memory 42 GB/s"]
    flat = {line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2}
    assert {480.0, 52e3, 370e3, 720e3} <= flat
    (slant,) = [line for line in ax.lines if list(line.get_ydata())[1:] == [480.0] and line.get_ydata()[0] < 480]
    x, y = slant.get_xdata(), slant.get_ydata()
    assert [b / a for a, b in zip(x, y, strict=True)] == pytest.approx([42, 42], rel=1e-12)
    assert "above the slanted roof" in said


def test_roofline_without_peaks():
    result, ax = make_result(), axes()
    for facts in result["contenders"].values():
        facts |= {"peak_gflops": None, "gb_per_second": None}
    roofline(result, result["networks"][0], ax)
    assert texts(ax) == []


def test_parts_are_stacked_up_to_the_step():
    network, ax = make_result(("numpy",))["networks"][0], axes()
    said = parts(network, ax)
    us = network["parts"]["contenders"]["numpy"]["us"]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths[:-1] == pytest.approx([us[part] for part in PART_COLOURS], rel=1e-9)
    assert widths[-1] == pytest.approx(us["step"] - sum(widths[:-1]), rel=1e-9)
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert [bar.get_x() for bar in ax.patches] == pytest.approx([0, *ends[:-1]], rel=1e-9)
    assert entries(ax) == [*PART_COLOURS, "rest"]
    assert ax.get_xlabel() == "µs"
    assert said == "One step at batch size 64; the rest is what the step takes besides its parts."


def test_parts_longer_than_the_step_are_not_scaled_and_said():
    network, ax = make_result()["networks"][0], axes()
    found = network["parts"]["contenders"]
    for part in found["numba"]["us"]:
        found["numba"]["us"][part] *= 20
    said, us = parts(network, ax), found["numba"]["us"]
    bars = [bar for bar in ax.patches if bar.get_y() > 0.5]
    # and no rest, which is never negative
    assert [bar.get_width() for bar in bars] == pytest.approx([us[part] for part in PART_COLOURS], rel=1e-9)
    assert [list(line.get_xdata()) for line in ax.lines] == [[us["step"]] * 2]
    assert "Parts that take longer than the whole step" in said
    assert "numba 56 of 28 µs" in said


def test_very_unequal_steps_are_drawn_as_shares():
    network, ax = make_result()["networks"][0], axes()
    said = parts(network, ax)
    assert ax.get_xlabel() == "share of the bar (%)"
    assert "relative to its own length" in said
    assert max(bar.get_x() + bar.get_width() for bar in ax.patches) == pytest.approx(100, rel=1e-9)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["numpy\n157 µs", "numba\n1.4 µs"]


def test_operations_have_a_bar_for_each_contender_but_numpy():
    result, ax = make_operations(("numpy", "numba", "cupy")), axes()
    result["operations"][1]["contenders"]["cupy"] = {"status": "failed", "why": "no"}
    result["operations"][2]["contenders"]["numba"]["status"] = "noisy"
    operations(result, ax)
    rows = result["operations"]
    assert entries(ax) == ["numba", "cupy", "noisy"]
    assert len(ax.patches) == 2 * len(rows) - 1
    ratio = rows[0]["contenders"]["numba"]["over_numpy"]
    assert ratio < 1, "to the left of the line"
    assert ax.patches[0].get_x() + ax.patches[0].get_width() == pytest.approx(ratio, rel=1e-12)
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "elementwise m=256 n=512"


def luminance(colour):
    levels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [*(colour for colour, _ in LOOKS.values()), *PART_COLOURS.values()])
def test_colours_can_be_seen_on_light_and_dark_paper(colour):
    """The contrast that WCAG 2.1, 1.4.11, asks of graphics."""
    own = luminance(colour)
    assert 1.05 / (own + 0.05) >= 3
    assert (own + 0.05) / (luminance("#16191e") + 0.05) >= 3


def test_a_contender_always_looks_the_same():
    assert len({marker for _, marker in LOOKS.values()}) == len({colour for colour, _ in LOOKS.values()}) == len(LOOKS)
    assert look("something new") == look("something new")


RESULTS = {
    "two": make_result(networks=("tiny", "digits")),
    "inference": make_result(mode="inference"),
    "ops": make_operations(),
    "nothing": make_result(networks=()),
    "no batch size": make_result(batches=()),
}


@pytest.mark.parametrize("name", RESULTS)
def test_one_file_of_everything(name, tmp_path):
    path = tmp_path / "plots.svg"
    save_plots(RESULTS[name], path)
    text = path.read_text("utf-8")
    for words in {
        "two": ("tiny: 4-32-32-1", "digits: 64-128-10", "samples/s", "GFLOP/s", "BP4"),
        "inference": ("samples/s", "GFLOP/s"),
        "ops": ("times as fast as NumPy", "softmax m=256 n=512"),
    }.get(name, ("nothing was measured",)):
        assert f">{words}<" in text
    assert ("BP4" in text) == (name == "two")


@pytest.mark.parametrize(("extension", "magic"), [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")])
def test_formats(extension, magic, tmp_path):
    path = tmp_path / f"plots{extension}"
    save_plots(RESULTS["inference"], path)
    assert path.read_bytes().startswith(magic)


def test_two_files_of_one_result_are_the_same(tmp_path):
    for name in ("a.svg", "b.svg"):
        save_plots(RESULTS["inference"], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_another_extension_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"as \.png, \.svg, \.pdf, not as .*plots\.jpg"):
        save_plots(RESULTS["two"], tmp_path / "plots.jpg")


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"a file of plots needs the package 'matplotlib'.*bpcore\[plot\]"):
        save_plots(RESULTS["two"], tmp_path / "plots.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    save_plots(RESULTS["two"], tmp_path / "plots.png")


def test_nothing_half_written(monkeypatch, tmp_path):
    path = tmp_path / "plots.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("bpcore.bench.plots.roofline", fail)
    with pytest.raises(MemoryError):
        save_plots(RESULTS["two"], path)
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("plots.png", b"old")]
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="there is no folder"):
        save_plots(RESULTS["inference"], tmp_path / "nowhere" / "plots.png")

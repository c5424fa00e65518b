"""The HTML report: complete, well-formed, escaped, by itself, and for light and dark."""

from __future__ import annotations

import copy
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from bpcore.bench import words as in_words
from bpcore.bench.html import render, save_html
from bpcore.bench.html_tables import percent, time_of
from bpcore.bench.markup import Markup, join, table, tag
from bpcore.bench.svg import INK, PAPER
from bpcore.errors import MissingExtraError, ModelFileError
from tests.helpers.sweep_results import ALL_ROWS, BATCHES, GPU, make_operations, make_result, set_status

pytest.importorskip("matplotlib")

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Reads a page, and refuses what a browser would have to repair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.handle_startendtag(name, attributes)
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute of <{name}> is there twice"
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def of(self, name):
        return [attributes for found, attributes in self.elements if found == name]


def interrupted():
    result = set_status(make_result(), {(batch, name): "skipped" for batch in BATCHES for name in ("numpy", "numba")})
    result["networks"][0]["parts"] = {}
    return result | {"interrupted": True}


def half_started():
    result = make_result()
    result["contenders"]["cupy"] = {"status": "skipped", "why": "no GPU was found"}
    return result


def bare_machine():
    result = make_result()
    unknown = dict.fromkeys(
        ("quota", "load", "load_afterwards", "clock_mhz", "clock_mhz_afterwards", "commit", "dirty")
    )
    result["machine"] |= unknown | {"available_memory": None, "environment": {}, "removed_variables": []}
    return result


RESULTS = {
    "two": make_result(networks=("tiny", "digits")),
    "gpu": set_status(make_result(GPU, networks=("digits", "wide")), ALL_ROWS),
    "inference": make_result(mode="inference"),
    "one batch size": make_result(batches=(64,)),
    "numpy alone": make_result(("numpy",)),
    "interrupted": interrupted(),
    "half started": half_started(),
    "bare machine": bare_machine(),
    "no network": make_result(networks=()),
    "no batch size": make_result(batches=()),
    "ops": make_operations(("numpy", "numba", "cupy")),
    "ops of numpy": make_operations(("numpy",)),
    "no operation": make_operations() | {"operations": []},
}
PAGES: dict[str, str] = {}


@pytest.fixture(params=list(RESULTS))
def name(request):
    return request.param


def page(name):
    if name not in PAGES:
        PAGES[name] = render(RESULTS[name])
    return PAGES[name]


def test_every_page_is_well_formed_and_ids_are_unique(name):
    found = Page(page(name))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [
        value[1:] for _, attributes in found.elements for value in [attributes.get("href")] if value and value[0] == "#"
    ]
    targets += re.findall(r"url\(#([^)]+)\)", page(name))
    targets += [value for _, attributes in found.elements for value in [attributes.get("aria-labelledby")] if value]
    assert targets
    assert set(targets) <= set(ids)


def test_a_page_needs_nothing_else(name):
    found, text = Page(page(name)), page(name)
    loads = [a[key] for _, a in found.elements for key in ("src", "href", "srcset", "action", "data") if key in a]
    assert [value for value in loads if not str(value).startswith(("#", "data:,"))] == []
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "@import" not in text
    assert [script for script in found.of("script") if script.get("type") != "application/json"] == []
    assert not [key for _, attributes in found.elements for key in attributes if key.startswith("on")]
    (policy,) = [meta["content"] for meta in found.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_tables_are_rectangles(name):
    for content in re.findall(r"<table.*?</table>", page(name), re.DOTALL):
        widths, from_above = [], 0
        for row in re.findall(r"<tr>(.*?)</tr>", content, re.DOTALL):
            cells = re.findall(r"<t[hd]([^>]*)>", row)
            spans = [int((re.findall(r'colspan="(\d+)"', cell) or ["1"])[0]) for cell in cells]
            widths.append(sum(spans) + from_above)
            from_above = sum('rowspan="2"' in cell for cell in cells)
        assert len(set(widths)) == 1, content


def test_the_raw_result_is_in_the_page(name):
    (data,) = re.findall(r'<script type="application/json" id="result">(.*?)</script>', page(name), re.DOTALL)
    assert json.loads(data) == json.loads(json.dumps(RESULTS[name]))


def test_how_to_read_it_works(tmp_path, monkeypatch):
    from bpcore.bench.html import HOW_TO_READ

    monkeypatch.chdir(tmp_path)
    save_html(RESULTS["two"], tmp_path / "report.html")
    scope: dict[str, object] = {}
    exec(HOW_TO_READ, scope)
    assert scope["result"] == json.loads(json.dumps(RESULTS["two"]))


def test_pictures_take_the_colours_of_the_page_and_say_what_they_show(name):
    text, pictures = page(name), Page(page(name)).of("svg")
    assert INK not in text
    assert PAPER not in text
    for picture in pictures:
        assert picture["role"] == "img"
        assert len(picture["aria-label"]) > 40
        assert "viewbox" in picture
        assert "width" not in picture
    assert text.count("currentColor") >= 10 * len(pictures)
    expected = {"two": 6, "gpu": 6, "inference": 2, "interrupted": 0, "ops": 1, "ops of numpy": 0, "no network": 0}
    if name in expected:
        assert len(pictures) == expected[name]


def test_styles_of_a_picture_do_not_reach_the_page(name):
    assert len(Page(page(name)).of("style")) == 1


def test_light_and_dark_phone_and_printer():
    text = page("two")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    for query in ("(prefers-color-scheme: dark)", "print", "(max-width: 40rem)"):
        assert f"@media {query} {{" in text
    names = {scheme: set(re.findall(r"(--[\w-]+):", block)) for scheme, block in
             zip(("light", "dark"), re.findall(r":root \{(.*?)\}", text, re.DOTALL), strict=False)}  # fmt: skip
    assert names["light"] - names["dark"] == {"--font", "--mono"}
    tables = Page(text).of("table")
    assert len([one for one in Page(text).of("div") if one.get("class") == "scroll"]) == len(tables) > 5


def test_the_answer_in_words():
    digits = RESULTS["two"]["networks"][1]
    words = in_words.answer(digits)
    assert re.fullmatch(
        r"Best here: numba at every batch size from 1 to 65536 \([\d.]+ to [\d.]+ times as fast as NumPy\).*\.", words
    )
    assert Page(page("two")).text.count(words) == 2, "once at the top and once with the figures"
    assert in_words.answer(RESULTS["numpy alone"]["networks"][0]).startswith(
        "Best here: numpy at every batch size from 1 to 65536."
    )
    (cell,) = RESULTS["one batch size"]["networks"][0]["cells"]
    times = f"{cell['contenders']['numba']['over_numpy']:.3g} times as fast as NumPy"
    assert in_words.answer(RESULTS["one batch size"]["networks"][0]) == f"Best here: numba at batch size 64 ({times})."
    assert in_words.answer(RESULTS["interrupted"]["networks"][0]) == "Nothing was measured that could be ranked."


def test_the_answer_prefers_quiet_figures_and_tells_ties():
    network = copy.deepcopy(RESULTS["two"]["networks"][1])
    network["cells"][0]["contenders"]["numpy"]["status"] = "noisy"
    network["cells"][0]["contenders"]["numba"]["over_numpy"] = 12345.0
    for cell in network["cells"]:
        cell["ties"] = ["numpy"] if cell["batch"] == 64 else []
    words = in_words.answer(network)
    assert "12345" not in words
    assert "12300" not in words
    assert "at 1 of 9 batch sizes noise does not tell it from another" in words


def test_statuses_and_their_reasons_are_shown():
    text = Page(page("gpu")).text
    for status, words in {
        "numpy, noisy": "(ranked) at 16: half of the rounds are 31 %",
        "cupy, suspect": "at 64: above the measured peak",
        "cupy:bf16, differs": "at 256: it computes something else than the float64 witness",
        "numpy, skipped": "at 4096: a step would take about 4.2 s",
        "numba, failed": "at 4096: the process ended with code -11",
    }.items():
        assert re.sub(r"\s+", " ", f"{status} {words}") in text
    rows = re.findall(r"<tr><th scope=\"row\">256</th>.*?</tr>", page("gpu"))
    (cell,) = re.findall(r'<td class="word" title="it computes[^"]*">differs</td>', rows[0])
    figures = rows[0][: rows[0].index(cell)].split("</td>")[-5:-1]
    assert [figure[-1] for figure in figures] == ["\N{EN DASH}"] * 4, "a wrong figure is not shown"


def test_reasons_of_the_same_kind_come_once():
    text = Page(page("interrupted")).text
    places = ", ".join(map(str, BATCHES))
    assert f"numba, skipped at {places}; the first reason: a step would take about 4.2 s" in text


def test_figures_of_a_row():
    (cell,) = [cell for cell in RESULTS["two"]["networks"][1]["cells"] if cell["batch"] == 1024]
    row = cell["contenders"]["numba"]
    (line,) = re.findall(r'<tr><th scope="row">1024</th>.*?</tr>', page("two"))[1:]
    found = [re.sub(r"<.*?>", "", part) for part in line.split("</td>")]
    rate = row["samples_per_second"]
    assert found[4:9] == [
        time_of(row["us_per_step"]["median"]), f"{rate / 1e6:.3g} M", f"{row['over_numpy']:.3g}",
        percent(row["of_peak"]), "best",
    ]  # fmt: skip
    assert 'class="best"' in line
    assert (time_of(12345.6), time_of(3.14159), percent(0.12345), percent(None)) == (
        "12.3 k",
        "3.14",
        "12.3 %",
        "\N{EN DASH}",
    )


def test_crossovers_parts_plans_and_parity():
    text = Page(page("gpu")).text
    (found,) = [
        pair["from_batch"] for pair in RESULTS["gpu"]["networks"][0]["crossovers"]
        if (pair["contender"], pair["over"]) == ("cupy", "numba")
    ]  # fmt: skip
    assert re.search(r"faster than cupy:bf16.* cupy always from " + str(found) + " on", text)
    for words in ("rest", "BP4", "the calls of the engine.", "compiled 16 a reason", "1.2e-07 1e-04 3.4e-04 2e-03"):
        assert words in text
    assert "1.2e-07 2e-02 3.4e-04 1e-01" in text, "bf16 may be further away"
    inference = Page(page("inference")).text
    assert "Where the time of a step goes" not in inference
    assert "outputs" in inference
    assert "movement" not in inference


def test_not_finite_parity_is_said():
    result = make_result()
    result["networks"][0]["cells"][0]["contenders"]["numba"]["parity"]["after"]["movement"] = None
    assert "not finite" in render(result)


def test_the_machine_and_the_method():
    text = Page(page("gpu")).text
    for words in (
        "Some CPU 9000", "Some GPU, 80 GiB, CUDA 13.0", "avx2, fma, avx512f", "16, usable 16", "Linux 6.1 x86_64",
        "0.1.0, commit 0123456789ab, with uncommitted changes", "0.1, 0.2, 0.3; 1.5, 1, 0.5", "3210 MHz, 2987 MHz",
        "OMP_NUM_THREADS=4", "OPENBLAS_CORETYPE", "openblas 0.3.31 for SkylakeX, 16 threads", "480 GFLOP/s",
        "720 TFLOP/s", "2.9 TB/s", "each library's own choice", "2026-01-02 03:04:05 UTC", "A visit is 3 rounds",
        "a step of training", "complete after 108 s of a budget of 110 s",
    ):  # fmt: skip
        assert words in text, words
    assert "a call of predict" in Page(page("inference")).text
    assert "skipped: no GPU was found" in Page(page("half started")).text
    assert "unknown; unknown" in Page(page("bare machine")).text


def test_warnings_and_interruption():
    assert not Page(page("two")).of("aside")
    text = Page(page("interrupted")).text
    assert "interrupted: what is missing was not measured" in text
    assert "It was interrupted after 108 s" in text
    result = make_result() | {"warnings": ["the machine has become slower"]}
    assert "the machine has become slower" in Page(render(result)).text


def test_operations():
    text = Page(page("ops")).text
    assert "The fastest of 5 operations: cupy in 4, numpy in 1." in text
    tied = [cell | {"ties": ["numpy"]} for cell in RESULTS["ops"]["operations"][:2]]
    assert in_words.answer_of_operations(tied).endswith("; in 2 noise does not tell it from another.")
    assert "m=512 k=512 n=512" in text
    row = RESULTS["ops"]["operations"][0]["contenders"]["numba"]
    assert f"{row['us_per_step']['median']:.3g} {row['gflops']:.3g} GFLOP/s 0.556" in text
    assert "GB/s" in text
    assert "a call of an operation" in text
    assert "No operation was measured." in Page(page("no operation")).text


def test_everything_is_escaped():
    evil = "<script>alert('&amp;')</script><!--\"$title"
    result = make_result()
    result["networks"][0]["name"] = result["machine"]["cpu"] = evil
    result["warnings"] = [evil]
    result["machine"]["environment"] = {evil: evil}
    result["networks"][0]["cells"][0]["contenders"]["numba"] |= {"status": "noisy", "why": evil, "plan_why": evil}
    for facts in (result["contenders"], *(cell["contenders"] for cell in result["networks"][0]["cells"])):
        facts[evil] = facts["numba"]
    found = Page(render(result))
    assert len(found.of("script")) == 1
    assert found.text.count(evil) > 10
    assert len(found.of("title")) == 1


def test_markup():
    assert tag("a", "<", None, Markup("<b>"), href='"') == '<a href="&quot;">&lt;<b></a>'
    assert join(["a&", Markup("&amp;"), "", None]) == "a&amp;&amp;"
    assert '<th scope="row">x</th><td>1</td><td class="y">2</td>' in table(
        "c", [["h"]], [["x", "1", Markup('<td class="y">2</td>')]]
    )


def test_two_pages_of_one_result_are_the_same():
    assert render(RESULTS["inference"]) == render(RESULTS["inference"])


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("two", "no network"):  # with or without a picture to draw
        with pytest.raises(MissingExtraError, match=r"the HTML report needs the package 'matplotlib'.*bpcore\[plot\]"):
            save_html(RESULTS[name], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    result = make_result()
    result["seconds"] = float("nan")  # no JSON
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_html(result, path)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("report.html", "old")]
    with pytest.raises(ModelFileError, match="there is no folder"):
        save_html(RESULTS["no network"], tmp_path / "nowhere" / "report.html")

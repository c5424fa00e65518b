"""The computational graph: values, slopes, arrays, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from bpcore.errors import ConfigurationError, FormulaError, ShapeError
from bpcore.gallery import Graph, draw_graph

DIAMOND = {"u": "sin(p) * q", "v": "exp(0.3*p)", "r": "u*v + u**2 + q"}


def diamond_slopes(p, q):
    """Derivatives of r by p and q, by hand."""
    u, v = np.sin(p) * q, np.exp(0.3 * p)
    by_u, by_v = v + 2 * u, u
    return by_u * np.cos(p) * q + by_v * 0.3 * v, by_u * np.sin(p) + 1


def host(graph, value):
    return np.asarray(value if isinstance(value, float) else graph.be.to_numpy(value))


def test_numbers(backend):
    graph = Graph(DIAMOND, backend)
    found = graph.forward(p=0.7, q=1.2)
    u, v = np.sin(0.7) * 1.2, np.exp(0.21)
    assert found == pytest.approx(u * v + u**2 + 1.2, rel=1e-14)
    assert graph.backward() == pytest.approx(dict(zip("pq", diamond_slopes(0.7, 1.2), strict=True)), rel=1e-13)
    assert graph.local["u", "r"] == pytest.approx(v + 2 * u, rel=1e-14)
    for name in "pq":
        assert graph.slopes[name] == pytest.approx(float(graph.differences(name)), rel=1e-8)


def test_arrays_are_many_graphs_side_by_side(backend):
    p, q = np.linspace(-1, 2, 6).reshape(2, 3), np.linspace(0.5, 3, 6).reshape(2, 3)
    graph = Graph(DIAMOND, backend)
    graph.forward(p=p, q=q)
    slopes = graph.backward()
    for name, expected in zip("pq", diamond_slopes(p, q), strict=True):
        assert slopes[name].shape == (2, 3)
        np.testing.assert_allclose(host(graph, slopes[name]), expected, rtol=1e-13)
        np.testing.assert_allclose(graph.differences(name), expected, rtol=1e-7)


def test_a_number_that_feeds_arrays_collects_all_slopes(backend):
    p = np.linspace(-1, 2, 5)
    graph = Graph(DIAMOND, backend)
    graph.forward(p=p, q=1.5)
    slopes = graph.backward()
    by_p, by_q = diamond_slopes(p, 1.5)
    np.testing.assert_allclose(host(graph, slopes["p"]), by_p, rtol=1e-13)
    assert slopes["q"] == pytest.approx(by_q.sum(), rel=1e-13)
    assert float(graph.differences("q")) == pytest.approx(by_q.sum(), rel=1e-8)


def test_a_constant_slope_has_the_shape_of_its_node(backend):
    """Local derivatives that are numbers: of x + c by x, by c, and of c, which reaches five elements."""
    graph = Graph({"s": "x + c", "t": "2*s"}, backend)
    graph.forward(x=np.arange(5.0), c=3.0)
    slopes = graph.backward()
    assert host(graph, slopes["x"]).tolist() == [2.0] * 5
    assert slopes["c"] == 10.0
    assert host(graph, graph.slopes["t"]).tolist() == [1.0] * 5


def test_differences_leave_the_graph_as_it_was(cpu_backend):
    graph = Graph(DIAMOND, cpu_backend)
    graph.forward(p=0.7, q=1.2)
    graph.backward()
    before = dict(graph.values), dict(graph.local), dict(graph.slopes)
    graph.differences("p")
    assert (graph.values, graph.local, graph.slopes) == before


def test_structure():
    graph = Graph(DIAMOND, "numpy")
    assert graph.inputs == ("p", "q")
    assert graph.output == "r"
    assert [graph.depth(name) for name in ("p", "q", "u", "v", "r")] == [0, 0, 1, 1, 2]
    assert graph.edges == (("p", "u"), ("q", "u"), ("p", "v"), ("u", "r"), ("v", "r"), ("q", "r"))


def test_what_is_refused():
    with pytest.raises(ConfigurationError, match="a graph needs at least one node"):
        Graph({}, "numpy")
    with pytest.raises(
        ConfigurationError, match="node a = b uses b, which does not come before it; the nodes are a, b"
    ):
        Graph({"a": "b", "b": "x"}, "numpy")
    for circle in ({"a": "x", "b": "c", "c": "a"}, {"a": "x", "b": "a + b"}):
        with pytest.raises(ConfigurationError, match=r"node b = .* uses [bc], which does not come before it"):
            Graph(circle, "numpy")
    with pytest.raises(FormulaError, match="sinn"):
        Graph({"a": "sinn(x)"}, "numpy")
    graph = Graph(DIAMOND, "numpy")
    with pytest.raises(ConfigurationError, match="needs the values of a forward pass"):
        graph.backward()
    with pytest.raises(FormulaError, match="the graph has the inputs p, q; values were given for p"):
        graph.forward(p=1.0)
    with pytest.raises(ShapeError, match="arrays in a graph must have one shape"):
        graph.forward(p=np.zeros(2), q=np.zeros(3))


def test_a_picture_says_every_value_and_slope():
    figure = pytest.importorskip("matplotlib.figure")
    graph = Graph({"x": "2*w + 3*b", "y": "2*b + 1", "z": "x*y"}, "numpy")
    graph.forward(w=3, b=4)
    graph.backward()
    ax = figure.Figure().subplots()
    draw_graph(ax, graph)
    words = {text.get_text() for text in ax.texts}
    assert {"w", "b", "x = 2*w + 3*b", "y = 2*b + 1", "z = x*y", "3", "4", "18", "9", "162"} <= words
    assert {r"$\partial z/\partial w$ = 18", r"$\partial z/\partial b$ = 63", r"$\partial x/\partial b$ = 3"} <= words
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == len(graph.edges)

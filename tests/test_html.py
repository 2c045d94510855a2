"""The page of a graph: what is in the file, and what it does in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn import nn
from tinyrnn.viz import html, picture

pytestmark = pytest.mark.skipif(picture._program() is None, reason="needs graphviz: apt install graphviz")

T, B, I, H = 4, 2, 3, 4
NASTY = "</script><script>window.hit = 1</script>\"{x|y}' {{data}} é中 & \\N <b>"


class Page(HTMLParser):
    """A page taken apart: its elements, the text of its scripts, and what its templates hold."""

    def __init__(self, text):
        super().__init__()
        self.text, self.elements, self.scripts, self._kind = text, [], {}, None
        self.drawings = {
            name: ET.fromstring(svg) for name, svg in re.findall(r'<template id="([^"]+)">(.*?)</template>', text, re.S)
        }
        self.feed(text)
        self.close()
        self.data = json.loads(self.scripts["application/json"])

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._kind = dict(attrs).get("type", "") if tag == "script" else None

    def handle_endtag(self, tag):
        self._kind = None

    def handle_data(self, data):
        if self._kind is not None:
            self.scripts[self._kind] = self.scripts.get(self._kind, "") + data


def saved(drawing, folder):
    path = drawing.save(folder / "page.html")
    assert path.suffix == ".html"
    return Page(path.read_text(encoding="utf-8"))


def lstm_page(folder, **options):
    options = {"values": True, "gradients": True} | options
    return saved(tr.draw(nn.LSTM(I, H), tr.randn(T, B, I), **options), folder)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory):
    return lstm_page(tmp_path_factory.mktemp("lstm"))


def numbers(page, tensor, key="values"):
    told = page.data["tensors"][tensor]
    return np.array(told[key]["all"], dtype=float).reshape(told["shape"])


def named(view, title):
    return [(id, node) for id, node in view["nodes"].items() if node["title"] == title]


# ---------------------------------------------------------------- the file


def test_it_is_one_file_and_loads_nothing(lstm):
    tags = [tag for tag, _ in lstm.elements]
    assert not {"link", "img", "iframe", "object", "embed", "base", "use", "image"} & set(tags)
    for _, attributes in lstm.elements:
        assert not {"src", "href", "xlink:href", "action"} & attributes.keys()
        assert not [x for name, x in attributes.items() if name.startswith("on")]
    outside = re.findall(r"https?://[^\s\"')<]+", lstm.text)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}  # a name, which nothing is fetched by
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", lstm.text)


def test_no_other_script_may_run(lstm):
    policy = next(a["content"] for tag, a in lstm.elements if a.get("http-equiv") == "Content-Security-Policy")
    hashed = base64.b64encode(hashlib.sha256(lstm.scripts[""].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"


def test_every_view_is_there_and_every_node_is_drawn(lstm):
    assert list(lstm.drawings) == list(lstm.data["views"])
    assert list(lstm.drawings) == [f"{v} {d}" for v in ("rolled", "unrolled") for d in ("layer", "cell", "op")]
    model, x = nn.LSTM(I, H), tr.randn(T, B, I)
    for key, view in lstm.data["views"].items():
        graph = tr.draw(model, x, view=view["view"], detail=view["detail"]).graph
        assert (len(view["nodes"]), len(view["edges"])) == (len(graph.nodes), len(graph.edges))
        groups = {g.get("id"): g.get("class").split()[0] for g in lstm.drawings[key].iter() if g.get("class")}
        assert {id for id, kind in groups.items() if kind == "node"} == view["nodes"].keys()
        assert {id for id, kind in groups.items() if kind == "edge"} == view["edges"].keys()
        assert {id for id, kind in groups.items() if kind == "cluster"} <= view["boxes"].keys()
        for edge in view["edges"].values():
            assert {edge["from"], edge["to"]} <= view["nodes"].keys()


@pytest.mark.parametrize(("view", "detail"), [("rolled", "op"), ("unrolled", "cell"), ("rolled", "layer")])
def test_it_opens_with_the_view_of_the_picture(tmp_path, view, detail):
    assert lstm_page(tmp_path, view=view, detail=detail).data["first"] == f"{view} {detail}"


def test_without_time_there_is_one_view(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), tr.tanh, nn.Linear(4, 1))
    page = saved(tr.draw(model, tr.randn(2, 3), view="unrolled", detail="cell"), tmp_path)
    assert list(page.data["views"]) == ["rolled layer", "rolled op"]
    assert page.data["first"] == "rolled op"  # which looks the same
    assert page.data["steps"] == []
    assert page.data["gradients"] is None


@pytest.mark.parametrize(("what", "title"), [(nn.GRU(I, H), "GRU"), (tr.tanh, "tanh")])
def test_the_title_is_that_of_the_model(tmp_path, what, title):
    page = saved(tr.draw(what, tr.randn(T, B, I)), tmp_path)
    assert page.data["title"] == title
    assert f"<title>{title}</title>" in page.text


# ---------------------------------------------------------------- the data


def test_a_rolled_node_has_the_values_and_gradients_of_every_step(tmp_path):
    model, x = nn.RNN(I, H), tr.randn(T, B, I, requires_grad=True)
    page = saved(tr.draw(model, x, values=True, gradients=True), tmp_path)
    out, state = model(x)
    view = page.data["views"]["rolled op"]
    ((_, tanh),) = named(view, "tanh")
    assert [t for t, _ in tanh["outputs"][0]] == list(range(T)) == page.data["steps"]
    for t, tensor in tanh["outputs"][0]:
        np.testing.assert_allclose(numbers(page, tensor), out.numpy()[t], rtol=1e-3)
    ((_, leaf),) = named(view, "x")
    ((_, tensor),) = leaf["outputs"][0]
    expected = tr.grad(tr.sum(out) + tr.sum(state.h), x).numpy()
    np.testing.assert_allclose(numbers(page, tensor, "gradient"), expected, rtol=1e-3, atol=1e-6)


def test_a_large_tensor_is_told_by_what_it_is_like(tmp_path):
    x = np.arange(600.0).reshape(20, 30)
    x[0, :3] = np.nan, np.inf, -np.inf
    page = saved(tr.draw(tr.tanh, tr.tensor(x), values=True), tmp_path)
    told = page.data["tensors"][named(page.data["views"]["rolled op"], "x")[0][1]["outputs"][0][0][1]]
    assert told["bytes"] == 4800
    assert told["values"]["not_finite"] == 3
    assert (told["values"]["least"], told["values"]["greatest"]) == (3, 599)
    assert sum(told["values"]["bars"]) == 597
    assert told["values"]["norm"] == "nan"


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([1e308, -1e308], {"least": -1e308, "greatest": 1e308, "mean": 0, "norm": "inf", "bars": [15, *[0] * 14, 15]}),
        ([7.0], {"least": 7, "greatest": 7, "mean": 7, "norm": 38.34, "bars": [30, *[0] * 15]}),
        ([np.nan], {"not_finite": 30, "norm": "nan"}),
        ([0.0], {"least": 0, "greatest": 0, "mean": 0, "norm": 0, "bars": [30, *[0] * 15]}),
        ([3, 5], {"least": 3, "greatest": 5, "mean": 4, "bars": [15, *[0] * 14, 15]}),
    ],
)
def test_extreme_numbers_are_told(numbers, told):
    assert html._numbers(np.array(numbers * (30 // len(numbers)))) == told
    assert html._numbers(np.zeros((0, 3))) == {"all": [], "norm": 0}
    assert html._numbers(np.array([np.finfo("float64").max])) == {"all": ["1.7976931348623157e+308"], "norm": "inf"}


@pytest.mark.parametrize("key", ["unrolled op", "unrolled cell", "unrolled layer", "rolled op", "rolled cell"])
def test_the_walk_goes_back_and_lights_each_edge_with_its_target(lstm, key):
    view = lstm.data["views"][key]
    visited = [(id, t) for id, t, _, _ in view["walk"]]
    assert len(set(visited)) == len(visited)
    if key == "unrolled op":  # where numbers go up in the order in which nodes were made
        order = [int(id[1:]) for id, _ in visited]
        assert order == sorted(order, reverse=True)
    lit = [edge for id, _, _, flows in view["walk"] for edge in flows if view["edges"][edge]["to"] == id]
    assert len(lit) == sum(len(flows) for _, _, _, flows in view["walk"])
    assert set(lit) >= {id for id, edge in view["edges"].items() if "gradient" in edge}
    if key.startswith("unrolled"):
        assert len(set(lit)) == len(lit)
    kind = "⊙" if key.endswith("op") else "LSTMCell"
    times = [t for id, t in visited if view["nodes"][id]["title"] == kind]
    assert times == sorted(times, reverse=True)
    assert set(times) == set(range(T))


def test_the_walk_tells_the_norms_of_gradients(lstm):
    view = lstm.data["views"]["unrolled op"]
    for id, _, norm, _ in view["walk"]:
        tensors = [lstm.data["tensors"][n] for places in view["nodes"][id]["outputs"] for _, n in places]
        known = [tensor["gradient"]["norm"] for tensor in tensors if "gradient" in tensor]
        assert norm == (max(known) if known else None)
        assert known or view["nodes"][id]["kind"] == "output"


def test_what_is_left_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "MOST_TENSORS", 30)
    page = lstm_page(tmp_path)
    assert page.data["left_out"] == ["Cards tell of 3 steps, evenly spread, out of 4: the page would be too large."]
    assert page.data["steps"] == [0, 2, 3]
    monkeypatch.setattr(html, "MOST_DATA", 500)
    assert re.fullmatch(r"Values and gradients of \d+ tensors are left out.*", lstm_page(tmp_path).data["left_out"][1])
    assert len(json.dumps([t.get("values") for t in page.data["tensors"]])) > 500


def test_a_long_sequence_stays_small(tmp_path):
    drawing = tr.draw(nn.GRU(I, H), tr.randn(150, B, I), values=True, gradients=True)
    page = saved(drawing, tmp_path)
    assert len(page.text.encode()) < 2_000_000
    assert all(len(view["nodes"]) <= html.MOST_NODES for view in page.data["views"].values())


class Strange(nn.Module):
    def __init__(self):
        self.lstm = nn.RNN(I, H)

    def forward(self, x):
        return {NASTY: self.lstm(x)[0], "{{title}}": x * 2}


Strange.__name__ = NASTY


def test_names_are_text_and_nothing_else(tmp_path):
    x = tr.randn(T, B, I)
    page = saved(tr.draw(Strange(), x, names={NASTY + "2": x}), tmp_path)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert page.data["title"] == NASTY
    names = {node["title"] for node in page.data["views"]["rolled op"]["nodes"].values()}
    assert {NASTY, "{{title}}"} <= names
    texts = ["".join(text.itertext()) for text in page.drawings["rolled op"].iter("text")]
    assert NASTY in texts
    assert "{{title}}" in texts


def test_without_graphviz_it_is_dot_and_a_hint(tmp_path, monkeypatch, capsys):
    drawing = tr.draw(nn.RNN(I, H), tr.randn(T, B, I))
    monkeypatch.setattr(picture, "_program", lambda: None)
    path = drawing.save(tmp_path / "rnn.html")
    assert path == tmp_path / "rnn.dot"
    assert path.read_text(encoding="utf-8") == drawing.digraph.source
    assert "install Graphviz" in capsys.readouterr().err
    assert not (tmp_path / "rnn.html").exists()


# ---------------------------------------------------------------- the browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def chromium():
    """A browser with no window, driven by selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs a browser and its driver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,850"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    class CharModel(nn.Module):
        def __init__(self):
            self.embedding, self.lstm, self.head = nn.Embedding(9, I), nn.LSTM(I, H, num_layers=2), nn.Linear(H, 9)

        def forward(self, x):
            return self.head(self.lstm(self.embedding(x))[0])

    tr.manual_seed(0)
    drawing = tr.draw(CharModel(), tr.tensor(np.arange(8).reshape(T, B)), values=True, gradients=True)
    return drawing.save(tmp_path_factory.mktemp("page") / "model.html").as_uri()


@pytest.fixture
def browser(chromium, address):
    """The page, freshly opened; no test may leave an error in the console."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": LIGHT_AND_STILL})
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []


LIGHT_AND_STILL = [
    {"name": "prefers-color-scheme", "value": "light"},
    {"name": "prefers-reduced-motion", "value": "reduce"},
]


def find(browser, selector):
    return browser.find_element("css selector", selector)


def press(browser, group, name):
    browser.find_element("xpath", f"//*[@id='{group}']//button[text()='{name}']").click()


def slide(browser, name, value):
    browser.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('input'))", name, value
    )  # fmt: skip


def ids(browser, selector):
    """Return the ids of the elements in the drawing that a selector finds."""
    return browser.execute_script("return [...stage.querySelectorAll(arguments[0])].map((e) => e.id)", selector)


def visible(browser, selector):
    code = """return [...stage.querySelectorAll(arguments[0])]
        .filter((e) => getComputedStyle(e).display !== "none").map((e) => e.id)"""
    return set(browser.execute_script(code, selector))


def shown(browser):
    return browser.execute_script("return view")


def view_box(browser):
    return [float(x) for x in find(browser, "#stage svg").get_dom_attribute("viewBox").split()]


def test_it_opens_and_fetches_nothing(browser):
    assert browser.title == find(browser, "h1").text == "CharModel"
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert "CharModel" in find(browser, "#card").text
    assert "parameter: learned, drawn once" in find(browser, "#legend").text


def test_views_and_details_switch(browser):
    for view in ("unrolled", "rolled"):
        press(browser, "views", view)
        for detail in ("layer", "cell", "op"):
            press(browser, "details", detail)
            assert (shown(browser)["view"], shown(browser)["detail"]) == (view, detail)
            assert len(ids(browser, ".node")) == len(shown(browser)["nodes"])
            pressed = browser.find_elements("css selector", "header [aria-pressed=true]")
            assert [button.text for button in pressed] == [view, detail]


def test_search_highlights_and_goes_from_one_to_the_next(browser):
    press(browser, "views", "unrolled")
    search = find(browser, "#search")
    search.send_keys("TANH")
    nodes = shown(browser)["nodes"]
    found = {id for id, node in nodes.items() if "tanh" in node["title"] + node.get("source", "")}
    assert set(ids(browser, ".found")) == found
    assert find(browser, "#found").text == f"{len(found)} found"
    chosen = []
    for n in (1, 2):
        search.send_keys("\n")
        assert find(browser, "#found").text == f"{n} of {len(found)}"
        chosen += ids(browser, ".chosen")
    assert [nodes[id]["title"] for id in chosen] == ["tanh", "tanh"]  # names come before lines of source
    assert chosen[0] != chosen[1]
    box = find(browser, "#stage .chosen").rect
    stage = find(browser, "#stage").rect
    assert abs(box["x"] + box["width"] / 2 - stage["x"] - stage["width"] / 2) < 3
    assert "tanh" in find(browser, "#card").text
    for text, n in (("cells.1", None), ("no such thing", 0), ("cells.py", None)):
        search.clear()
        search.send_keys(text)
        assert (len(ids(browser, ".found")) > 0) == (n is None)
    search.send_keys("\ue00c")  # Escape
    assert ids(browser, ".found") == []


def test_the_time_slider_highlights_a_column(browser):
    press(browser, "views", "unrolled")
    slide(browser, "step", 2)
    nodes = shown(browser)["nodes"]
    pale = set(ids(browser, ".node.pale"))
    assert pale == {id for id, node in nodes.items() if node["steps"] and 2 not in node["steps"]}
    assert find(browser, "#step_said").text == "t = 2"
    find(browser, "#all_steps").click()
    assert ids(browser, ".pale") == []


def test_the_time_slider_shows_a_step_of_a_rolled_node(browser):
    (id, node), *_ = named(shown(browser), "tanh")
    find(browser, f"#{id}").click()
    assert "‖gradient‖ at each step" in find(browser, "#card").text
    values = []
    for t in range(T):
        slide(browser, "step", t)
        assert f"value, t = {t}" in find(browser, "#card").text
        values.append([float(x.text.replace("−", "-")) for x in browser.find_elements("css selector", "#card td")])
    tensors = browser.execute_script("return data.tensors")
    for (_, n), told in zip(node["outputs"][0], values, strict=True):
        assert told[: B * H] == tensors[n]["values"]["all"]
        assert told[B * H :] == tensors[n]["gradient"]["all"]


def test_the_backward_pass_lights_nodes_in_order(browser):
    press(browser, "views", "unrolled")
    press(browser, "details", "cell")
    walk = shown(browser)["walk"]
    code = """return view.walk.map(() => {
        byId("after").click();
        return [".node.now", ".edge.now", ".node.lit"].map((s) => [...svg.querySelectorAll(s)].map((e) => e.id));
    })"""
    lit = []
    for (id, _, _, flows), (now, edges, nodes) in zip(walk, browser.execute_script(code), strict=True):
        assert now == [id]
        assert set(edges) == flows.keys()
        assert set(nodes) - set(lit) == {id}
        lit.append(id)
    times = [shown(browser)["nodes"][id]["steps"] for id in lit if shown(browser)["nodes"][id]["kind"] == "step"]
    assert times == 2 * [[t] for t in reversed(range(T))]  # layer by layer, and from the last step to the first
    assert "gradient" in find(browser, "#card").text
    press(browser, "backward", "‹")
    assert find(browser, "#walk_said").text.startswith(f"{len(walk) - 1} of {len(walk)}: ")
    slide(browser, "walk", 0)
    assert ids(browser, ".lit") == []


def test_the_backward_pass_plays_and_pauses(browser):
    press(browser, "backward", "▶")
    taken = "return Number(document.getElementById('walk').value)"
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 20, 0.02).until(lambda b: b.execute_script(taken) >= 3)
    press(browser, "backward", "❚❚")
    at = browser.execute_script(taken)
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert browser.execute_script(taken) == at


def test_a_box_closes_and_opens(browser):
    title = browser.find_element("xpath", "//*[@data-box and text()='lstm: LSTM']")
    before, width = set(ids(browser, ".node")), browser.execute_script("return whole.width")
    box = title.get_attribute("data-box")
    inside = {id for id, node in shown(browser)["nodes"].items() if box in node["boxes"]}
    title.click()
    assert visible(browser, ".node") == before - inside
    assert browser.execute_script("return whole.width") < width
    edges = shown(browser)["edges"].items()
    assert visible(browser, ".edge") == {id for id, edge in edges if not {edge["from"], edge["to"]} <= inside}
    assert title.get_attribute("aria-expanded") == "false"
    browser.execute_script("arguments[0].focus()", title)
    title.send_keys("\n")
    assert visible(browser, ".node") == before
    assert browser.execute_script("return whole.width") == width
    assert title.get_attribute("aria-expanded") == "true"


def test_edges_end_at_the_border_of_a_closed_box(browser):
    title = browser.find_element("xpath", "//*[@data-box and text()='lstm: LSTM']")
    box = title.get_attribute("data-box")
    title.click()
    nodes = shown(browser)["nodes"]
    for id, edge in shown(browser)["edges"].items():
        ends = [box in nodes[edge[end]]["boxes"] for end in ("from", "to")]
        if ends == [False, True]:
            gap = browser.execute_script(
                """const tip = document.querySelector(`#${arguments[0]} polygon`).getBoundingClientRect();
                const box = document.querySelector(`#${arguments[1]} path`).getBoundingClientRect();
                const [x, y] = [(tip.left + tip.right) / 2, (tip.top + tip.bottom) / 2];
                return Math.max(box.left - x, x - box.right, box.top - y, y - box.bottom) / pixelsPerUnit();""",
                id, box,
            )  # fmt: skip
            assert 0 < gap < 6


def test_the_backward_pass_lights_a_closed_box_for_what_is_inside(browser):
    title = browser.find_element("xpath", "//*[@data-box and text()='lstm: LSTM']")
    box = title.get_attribute("data-box")
    title.click()
    walk, nodes = shown(browser)["walk"], shown(browser)["nodes"]
    n = next(n for n, visit in enumerate(walk, 1) if box in nodes[visit[0]]["boxes"])
    slide(browser, "walk", n)
    assert ids(browser, ".now:not(.edge)") == [box]


def test_it_can_be_moved_and_zoomed(browser):
    from selenium.webdriver import ActionChains

    stage = find(browser, "#stage")
    x, y, width, _ = view_box(browser)
    ActionChains(browser).move_to_element_with_offset(stage, 0, -200).click_and_hold().move_by_offset(
        50, 30
    ).release().perform()
    assert view_box(browser)[0] < x
    assert view_box(browser)[1] < y
    find(browser, "#larger").click()
    assert view_box(browser)[2] < width
    browser.find_element("css selector", "body").send_keys("--")
    assert view_box(browser)[2] > width
    browser.find_element("css selector", "body").send_keys("0")
    assert view_box(browser)[2] == pytest.approx(width)
    ActionChains(browser).scroll_from_origin(_origin(stage), 0, -120).perform()
    assert view_box(browser)[2] < width


def _origin(element):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element)


def test_pointing_shows_a_card_and_choosing_keeps_it(browser):
    from selenium.webdriver import ActionChains

    (id, node), *_ = named(shown(browser), "W")
    ActionChains(browser).move_to_element(find(browser, f"#{id}")).perform()
    card = find(browser, "#card")
    assert f"in {node['module']}" in card.text
    assert "float32" in card.text
    assert "bytes" in card.text
    assert ids(browser, ".edge.near")
    ActionChains(browser).move_to_element(find(browser, "h1")).perform()
    assert "W" not in card.text.split("\n")[0].split()
    find(browser, f"#{id}").click()
    ActionChains(browser).move_to_element(find(browser, "h1")).perform()
    assert f"in {node['module']}" in card.text
    browser.find_element("css selector", "body").send_keys("\ue00c")  # Escape
    assert f"in {node['module']}" not in card.text


def test_the_keyboard_reaches_every_node(browser):
    press(browser, "details", "layer")
    browser.execute_script("stage.focus()")
    reached, nodes = set(), shown(browser)["nodes"]
    while True:
        browser.switch_to.active_element.send_keys("\t")
        code = "const e = document.activeElement; return [stage.contains(e), e.id, e.role, e.ariaLabel]"
        in_stage, id, role, label = browser.execute_script(code)
        if not in_stage:
            break
        assert role == "button"
        assert label
        if id in nodes:
            reached.add(id)
            assert nodes[id]["title"] in label
            assert nodes[id]["title"] in find(browser, "#card").text
    assert reached >= shown(browser)["nodes"].keys()


def test_dark_colours(browser):
    look = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    parts = [
        ("body", "background-color"),
        (".node.operation path", "fill"),
        ("svg text", "fill"),
        (".edge path", "stroke"),
    ]
    light = [browser.execute_script(look, *part) for part in parts]
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [dark, LIGHT_AND_STILL[1]]})
    in_the_dark = [browser.execute_script(look, *part) for part in parts]
    assert all(a != b for a, b in zip(light, in_the_dark, strict=True))
    find(browser, "#theme").click()
    assert [browser.execute_script(look, *part) for part in parts] == light
    find(browser, "#theme").click()
    assert [browser.execute_script(look, *part) for part in parts] == in_the_dark


def test_a_phone_is_wide_enough(browser):
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for view in ("unrolled", "rolled"):
        press(browser, "views", view)
        slide(browser, "walk", 9)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        for button in browser.find_elements("css selector", "button"):
            if button.is_displayed():
                assert button.rect["x"] >= 0
                assert button.rect["x"] + button.rect["width"] <= 360
    assert find(browser, "#stage").rect["height"] > 300
    (id, _), *_ = named(shown(browser), "W")
    browser.execute_script("pin(arguments[0])", id)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    covered = "return stage.getBoundingClientRect().bottom - byId('card').getBoundingClientRect().top"
    assert browser.execute_script(covered) <= 1


def test_paper_has_the_graph_and_the_legend(browser):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    x, y, width, height = view_box(browser)
    whole = browser.execute_script("return whole")
    assert x < whole["x"]
    assert y < whole["y"]
    assert x + width > whole["x"] + whole["width"]
    assert y + height > whole["y"] + whole["height"]
    assert find(browser, "#stage svg").rect["height"] > 200
    assert find(browser, "#legend").is_displayed()
    for name in ("#controls", "#search", "#theme", "#views"):
        assert not find(browser, name).is_displayed()
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_strange_names_run_nothing(chromium, tmp_path):
    x = tr.randn(T, B, I)
    drawing = tr.draw(Strange(), x, names={NASTY + "2": x}, values=True, gradients=True)
    chromium.get(drawing.save(tmp_path / "strange.html").as_uri())
    assert chromium.execute_script("return window.hit") is None
    assert chromium.title == " ".join(NASTY.split())
    names = chromium.execute_script("return Object.values(view.nodes).map((node) => node.title)")
    for name in (NASTY, "{{title}}"):
        id = chromium.execute_script("return Object.keys(view.nodes)[arguments[0]]", names.index(name))
        chromium.execute_script("pin(arguments[0])", id)
        assert find(chromium, "#card .title").text.startswith(name)
    assert chromium.get_log("browser") == []

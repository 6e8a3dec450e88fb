"""The report as a page, in a real browser: what a reader sees, and what must never get in."""

import base64
import html
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastcheck.model.approximation import Approximation, Curve, Kinks, VCurve
from fastcheck.model.parameters import ThetaLayout
from fastcheck.report.data import HeldTo, MethodFacts, NetworkFacts, Report, RunFacts
from fastcheck.report.downsample import downsample
from fastcheck.report.html.heatmap import LIGHT, Cells
from fastcheck.report.html.page import notebook, render
from fastcheck.report.json import _dataclass, encode
from fastcheck.report.plot_data import Pictures
from fastcheck.settings import Settings
from fastcheck.verdict.verdict import evaluate

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
EVIL = "</script><script>alert(1)</script>"
# The browser itself reads the screenshot.
DECODE = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  let text = "";
  for (const byte of pen.getImageData(0, 0, image.width, image.height).data)
    text += String.fromCharCode(byte);
  return [image.height, image.width, btoa(text)];
}"""
HALF_BLACK, MEGABYTE = 128, 2**20


def checked(
    sizes: tuple[int, ...] = (1024, 1024, 10),
    wrong: dict[int, float] | None = None,
    kinks: tuple[int, ...] = (),
    **facts: Any,
) -> tuple[Report, Pictures]:
    """Return a report on a made-up gradient: right but for θ[index] times a factor."""
    layers = len(sizes) - 1
    order = facts.pop("order", None) or ThetaLayout.from_sizes(sizes, [True] * layers)
    values = np.random.default_rng(0).normal(size=order.size)
    gradient = values * (1 + 1e-12)
    for index, factor in (wrong or {}).items():
        gradient[index] *= factor
    places = np.array(kinks, np.int64)
    there = Kinks(places, values[places] - 0.5, values[places] + 0.5)
    approximation = Approximation("unit", 1e-7, None, values, kinks=there)
    return assembled(order, gradient, approximation, sizes, **facts)


def assembled(
    order: ThetaLayout,
    gradient: Any,
    approximation: Approximation,
    sizes: tuple[int, ...],
    **facts: Any,
) -> tuple[Report, Pictures]:
    settings = Settings()
    verdict = evaluate(order, gradient, approximation, 0.0, settings)
    network = NetworkFacts(
        "a network", sizes, ("relu",) * (len(sizes) - 1), "softmax_cross_entropy", "mean", 0.1,
        "(λ/2m)·Σ‖W‖²", 32, "float64", "rows",
    )  # fmt: skip
    known: dict[str, Any] = {
        "held_to": HeldTo(1e-7, "float64", "a relative difference of 1e-07"),
        "method": MethodFacts("unit", 1e-7, 3, verdict.whole.checked, order.size),
        "network": network,
        "run": RunFacts({"numpy": "2"}, 2, {"differences": 0.5}, "fastcheck problem.npz --seed 3"),
    }
    report = Report.of(verdict, **{**known, **facts})
    return report, downsample(order, gradient, approximation, 0.0, settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Opened:
    """A page in the browser, with everything that went wrong on it."""

    def __init__(self, browser: Any, text: str, width: int = 1240, scheme: str = "light") -> None:
        self.troubles: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        self.page = context.new_page()
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_content(text)

    def pixels(self, selector: str) -> Any:
        """Return (height, width, RGB) of an element's screenshot, from 0 to 1, without rings."""
        self.page.add_style_tag(content=".ring, .cursor, #tip { display: none !important }")
        png = base64.b64encode(self.page.locator(selector).screenshot()).decode()
        blank = self.page.context.new_page()
        height, width, values = blank.evaluate(DECODE, f"data:image/png;base64,{png}")
        data = np.frombuffer(base64.b64decode(values), np.uint8)
        return data.reshape(height, width, 4)[..., :3] / 255


# --- the data of the pictures


def naive_cells(order: ThetaLayout, name: str, severity: Any, relative: Any, cell: Any) -> Any:
    """Return the worst status of each cell, by a loop over all components."""
    block = order.block(name)
    height, width = (-(-n // c) for n, c in zip(block.shape, cell, strict=True))
    worst = np.full((height, width), -1.0)
    for inside in range(block.size):
        row, column = divmod(inside, block.shape[1])
        score = 2 * severity[block.offset + inside] + relative[block.offset + inside]
        at = row // cell[0], column // cell[1]
        worst[at] = max(worst[at], score)
    return worst


@pytest.mark.parametrize("transposed", [False, True])
def test_each_cell_holds_the_worst_of_its_components(transposed: bool) -> None:
    order = ThetaLayout.from_sizes((150, 301, 3), [True, False], transposed=transposed)
    rng = np.random.default_rng(1)
    values = rng.normal(size=order.size)
    relative = 10.0 ** rng.uniform(-16, -8, order.size)
    relative[rng.choice(order.size, 40, replace=False)] = 0.3
    gradient = values * (1 + relative) / (1 - relative)
    pictures = downsample(
        order, gradient, Approximation("unit", 1e-7, None, values), 0.0, Settings()
    )
    error = np.abs(gradient - values) / (np.abs(gradient) + np.abs(values))
    severity = np.where(error > 1e-7, 3, 0)
    grid = pictures.grids[0]
    cells = Cells.of(grid)
    cell, shape = grid.cell, order.blocks[0].user_shape
    if transposed:
        cells = replace(cells, **{k: v.T for k, v in vars(cells).items()})
        cell = cell[::-1]
    expected = naive_cells(order, "W1", severity, error, cell)
    np.testing.assert_allclose(2 * cells.status + cells.relative, expected, rtol=1e-6)
    assert cells.wrong.sum() == (severity[: order.blocks[0].size] == 3).sum()
    places = np.unravel_index(cells.place, shape)[:: -1 if transposed else 1]
    index = np.ravel_multi_index(places, order.blocks[0].shape)
    np.testing.assert_array_equal(cells.gradient, gradient[index])


def test_statuses_are_those_of_the_verdict() -> None:
    report, pictures = checked((40, 200, 7), {5: 2.0, 8005: -1.0}, kinks=(9, 8001))
    for block, histogram in zip(report.blocks, pictures.histograms, strict=True):
        agree, kink, cannot_tell, wrong = map(sum, histogram.counts)
        assert (kink, cannot_tell, wrong) == (block.kinks, block.cannot_tell, block.wrong)
        assert agree + kink + cannot_tell + wrong == block.checked


def test_a_sample_leaves_the_rest_unchecked() -> None:
    order = ThetaLayout.from_sizes((300, 200, 5), [True, True])
    indices = np.sort(np.random.default_rng(0).choice(order.size, 50, replace=False))
    gradient = np.ones(order.size)
    values = np.ones(50)
    values[20] = 2.0
    approximation = Approximation("textbook", 1e-7, indices, values)
    report, pictures = assembled(order, gradient, approximation, (300, 200, 5))
    statuses = np.concatenate([Cells.of(grid).status.ravel() for grid in pictures.grids])
    assert (statuses == 3).sum() == 1
    assert 45 <= (statuses != 255).sum() <= 50
    assert "of 61,205" in render(report, pictures)


def test_what_is_not_finite_cannot_be_told() -> None:
    order = ThetaLayout.from_sizes((4, 3), [True])
    values = np.ones(order.size)
    values[5] = np.nan
    approximation = Approximation("unit", 1e-7, None, values)
    report, pictures = assembled(order, np.ones(order.size), approximation, (4, 3))
    assert Cells.of(pictures.grids[0]).status.ravel().tolist() == [0] * 5 + [2] + [0] * 6
    assert "nan" in render(report, pictures)


def test_pictures_survive_json() -> None:
    report, pictures = checked((20, 30, 4), {3: 5.0})
    curve = VCurve(1e-7, 8, (Curve("unit", (1e-3, 1e-7), (1e-9, 1e-15)),))
    pictures = replace(pictures, v_curve=curve)
    again = _dataclass(Pictures, json.loads(json.dumps(encode(pictures))), "pictures")
    assert again == pictures
    assert render(report, again) == render(report, pictures)


# --- the page as text


def test_a_million_parameters_weigh_little_and_are_quick() -> None:
    report, pictures = checked()
    assert report.whole.size > 10**6
    start = time.perf_counter()
    page = render(report, pictures)
    assert time.perf_counter() - start < 3.0
    assert len(page.encode()) < 6 * MEGABYTE


def test_many_large_layers_share_the_budget() -> None:
    report, pictures = checked((32,) * 200)
    assert len(render(report, pictures).encode()) < 6 * MEGABYTE


def test_nothing_is_fetched() -> None:
    report, pictures = checked((20, 30, 4))
    page = render(report, pictures)
    assert not re.findall(r'(?:src|href|srcset)="(?!#|data:)', page)
    assert not re.findall(r"@import|url\(", page)


def test_without_pictures_there_are_words_and_tables() -> None:
    report, _ = checked((20, 30, 4), {3: 5.0})
    page = render(report)
    assert "W1[0, 3]" in page
    assert "<img" not in page
    assert "NaN" not in page


def test_the_diagnosis_and_the_mended_line_are_shown() -> None:
    finding = {
        "sentence": "dW2 is <transposed>",
        "rows": "dW2 = dZ2.T @ A1",
        "course": "dW2 = np.dot(dZ2, A1.T)",
        "consequences": ["dW1"],
        "explained": 1.0,
    }
    report, pictures = checked((20, 30, 4), {3: 5.0}, diagnosis={"findings": [finding]})
    page = render(report, pictures)
    assert "dW2 is &lt;transposed&gt;." in page
    assert "dW2 = dZ2.T @ A1" in page
    assert page.index("samples in rows") < page.index("samples in columns")


def test_what_goes_wrong_in_training_is_what_the_page_tells() -> None:
    """The figures at the top, the diagnosis and the components are those of the wrong check."""
    finding = {"sentence": "the penalty is on the biases", "rows": "db2 = dZ2.sum(axis=0)"}
    later, _ = checked((20, 30, 4), {3: 5.0}, diagnosis={"findings": [finding]})
    report, pictures = checked(
        (20, 30, 4), after_training=(later,), training="after 9 gradient steps"
    )
    assert (report.gradient_status, report.status) == ("agree", "wrong")
    page = render(report, pictures)
    assert "<dd>1 <small>at the start 0</small></dd>" in page
    assert "After 9 gradient steps" in page
    assert "The penalty is on the biases." in page
    assert "db2 = dZ2.sum(axis=0)" in page
    assert page.index("W1[0, 3]") < page.index("Where it is, after 9 gradient steps")
    assert 'class="weights wrong"' in page
    assert "at the start" not in render(*checked((20, 30, 4)))


def evil() -> tuple[Report, Pictures]:
    sizes = (20, 30, 4)
    names = {"W1": EVIL, "b1": '" onmouseover="alert(1)', "W2": "{{ 7 * 7 }}", "b2": "&lt;"}
    order = ThetaLayout.from_sizes(sizes, [True, True], names=names)
    finding = {"sentence": EVIL, "rows": EVIL}
    report, pictures = checked(
        sizes, {3: 5.0}, order=order, name=EVIL, notes=(EVIL,), diagnosis={"findings": [finding]}
    )
    return replace(report, run=replace(report.run, command=EVIL)), pictures


def test_names_from_the_data_are_escaped() -> None:
    page = render(*evil())
    assert EVIL not in page
    assert page.count("<script") == 2
    assert 'onmouseover="alert(1)"' not in page
    assert "{{ 7 * 7 }}" in html.unescape(page)


# --- in the browser


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1240])
def test_it_opens_offline_and_without_an_error(browser: Any, width: int, scheme: str) -> None:
    curve = VCurve(1e-7, 8, (Curve("textbook", (1e-3, 1e-7), (1e-6, 1e-8)),))
    report, pictures = checked((20, 300, 4), {3: 5.0}, kinks=(9, 7001))
    opened = Opened(browser, render(report, replace(pictures, v_curve=curve)), width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in opened.requests if not url.startswith(("about:", "data:"))] == []
    assert opened.troubles == []


@needs_browser
def test_evil_names_do_nothing(browser: Any) -> None:
    opened = Opened(browser, render(*evil()))
    opened.page.locator("[data-grid='0']").hover()
    assert EVIL in opened.page.locator("#tip b").inner_text()
    opened.page.locator("[data-grid='1']").hover()
    assert opened.troubles == []


@needs_browser
def test_injected_script_is_refused_by_the_page_itself(browser: Any) -> None:
    page = render(*checked((4, 3))).replace("</main>", "<script>alert(1)</script></main>")
    opened = Opened(browser, page)
    assert [t for t in opened.troubles if t == "1"] == []
    assert any("Content Security Policy" in t for t in opened.troubles)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1240])
def test_one_wrong_entry_in_a_million_is_seen(browser: Any, width: int, scheme: str) -> None:
    row, column = 700, 300
    report, pictures = checked(wrong={row * 1024 + column: -1.0})
    opened = Opened(browser, render(report, pictures), width, scheme)
    pixels = opened.pixels("[data-grid='0'] picture")
    red = (pixels[..., 0] > 0.6) & (pixels[..., 1] < 0.5) & (pixels[..., 2] < 0.5)
    assert red.any()
    down, right = np.argwhere(red).mean(axis=0) / red.shape
    assert abs(down - row / 1024) < 0.01
    assert abs(right - column / 1024) < 0.01


@needs_browser
def test_a_right_gradient_shows_no_red(browser: Any) -> None:
    opened = Opened(browser, render(*checked()))
    pixels = opened.pixels("[data-grid='0'] picture")
    assert not ((pixels[..., 0] > 0.6) & (pixels[..., 1] < 0.5)).any()


@needs_browser
def test_dark_is_dark_and_paper_is_white(browser: Any) -> None:
    opened = Opened(browser, render(*checked((20, 30, 4))), scheme="dark")
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert opened.page.evaluate(brightness) < HALF_BLACK
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"


@needs_browser
def test_on_paper_nothing_lies_over_anything_else(browser: Any) -> None:
    """A4 is 794 pixels wide; what is opened for print must fit into the card that it is in."""
    curve = VCurve(1e-7, 8, (Curve("textbook", (1e-3, 1e-7), (1e-6, 1e-8)),))
    report, pictures = checked((20, 300, 40, 4), {3: 5.0}, kinks=(9, 7001))
    opened = Opened(browser, render(report, replace(pictures, v_curve=curve)), width=794)
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 794
    too_wide = """[...document.querySelectorAll('table, pre, .chart, .field')].filter(inner => {
      const box = inner.getBoundingClientRect(), around = inner.closest('.layer, figure, section');
      return box.width && box.right > around.getBoundingClientRect().right + 1;
    }).map(inner => inner.outerHTML.slice(0, 80))"""
    assert opened.page.evaluate(too_wide) == []
    assert opened.page.locator("text=/^As a table$/").is_visible()
    assert opened.troubles == []


@needs_browser
def test_hovering_tells_both_values(browser: Any) -> None:
    opened = Opened(browser, render(*checked((20, 30, 4), {3 * 20 + 5: 5.0})))
    field = opened.page.locator("[data-grid='0']")
    box = field.bounding_box()
    where = {"x": box["width"] * 5.5 / 20, "y": box["height"] * 3.5 / 30}
    field.hover(position=where)
    assert opened.page.locator("#tip b").inner_text() == "W1[3, 5]"
    labels, values = (opened.page.locator(f"#tip {tag}").all_inner_texts() for tag in ("dt", "dd"))
    told = dict(zip(labels, values, strict=True))
    assert float(told["dθ"]) == pytest.approx(5 * float(told["dθ_approx"]))
    assert (told["ratio"], told["difference"], told["status"]) == ("5", "0.667", "wrong")
    opened.page.mouse.move(0, 0)
    assert not opened.page.locator("#tip").is_visible()


@needs_browser
def test_the_keyboard_reaches_the_wrong_cell_and_it_is_spoken(browser: Any) -> None:
    opened = Opened(browser, render(*checked((20, 30, 4), {3 * 20 + 5: 5.0})))
    opened.page.locator("[data-grid='0']").focus()
    opened.page.keyboard.press("w")
    assert opened.page.locator("#spoken").text_content().startswith("W1[3, 5]: dθ")
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.locator("#spoken").text_content().startswith("W1[3, 6]: dθ")


@needs_browser
def test_hovering_over_a_point_names_it(browser: Any) -> None:
    opened = Opened(browser, render(*checked((20, 30, 4), {65: 5000.0})))
    chart = opened.page.locator("svg[data-points=errors]")
    chart.scroll_into_view_if_needed()
    mark = chart.locator("path.marks.wrong").bounding_box()
    opened.page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert "W1[3, 5]" in opened.page.locator("#tip").inner_text()


@needs_browser
def test_every_picture_has_a_name_for_those_who_do_not_see_it(browser: Any) -> None:
    opened = Opened(browser, render(*checked((20, 30, 4), {3: 5.0})))
    page = opened.page
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("main").count() == page.locator("h1").count() == 1
    for element in page.locator("svg, [role=application]").all():
        assert element.get_attribute("aria-label") or element.get_attribute("aria-labelledby")
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


@needs_browser
def test_a_notebook_shows_it_in_a_frame(browser: Any) -> None:
    opened = Opened(browser, notebook(*checked((20, 30, 4), {3: 5.0})))
    frame = opened.page.frame_locator("iframe")
    frame.locator("[data-grid='0']").hover()
    assert "W1[" in frame.locator("#tip").inner_text()
    assert opened.troubles == []


def test_colours_of_a_right_gradient_are_calm() -> None:
    palette = LIGHT.palette
    assert len(palette) == 35
    assert all(red <= blue for red, _, blue in palette[1:17])

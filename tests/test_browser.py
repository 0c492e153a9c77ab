"""Explore page and report in a real browser: what a reader does, and what a screen reader meets."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import explore_page, fabricate
from workflow_scripts import write_report
from workflow_scripts.write_explore import STATIC

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "web"
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(explore_page.chromium() is None, reason="no Chromium on the path"),
]
needs_npm = pytest.mark.skipif(
    not AXE.exists(), reason="web/node_modules is not there: npm ci --prefix web (make test-browser does it)"
)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=explore_page.chromium(), args=explore_page.CHROMIUM_FLAGS
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    files, _ = explore_page.write_page(folder, notice="Invented.")
    params = {
        "datasets": {"made": fabricate.settings(notice="Invented.", examples=2)},
        "models": {},
        "seed": 1,
        "config_digest": "abc",
        "logs": str(folder / "logs"),
    }
    named = {f"datasets/made/{kind}": path for kind, path in files.items()}
    job = fabricate.job(inputs=named, outputs={"report": folder / "explore" / "report.html"}, params=params)
    write_report.main(job)
    return folder / "explore"


@pytest.fixture(scope="module")
def address(written):
    with explore_page.served(written) as url:
        yield url


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(browser, address, request):
    """The explore page, opened; fails at the end where the console or the network told of an error."""
    opened = browser.new_page(viewport=request.param)
    troubles = []
    opened.on("console", lambda message: message.type == "error" and troubles.append(message.text))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("response", lambda answer: answer.status >= 400 and troubles.append(answer.url))
    opened.on("request", lambda asked: asked.url.startswith((address, "data:")) or troubles.append(asked.url))
    opened.goto(address)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    opened.close()
    assert not troubles


def search(page, words):
    page.fill("#query", words)
    page.press("#query", "Enter")


def test_search_by_id_opens_its_pictures_curve_and_story(page):
    search(page, "p004")
    page.wait_for_selector("h2:has-text('P004')")
    assert page.locator("canvas.look").count() + page.locator(".look.none").count() == 4
    assert page.locator("#curve canvas").count() == 1
    assert "stored" in page.inner_text("#place")
    assert "location=P004" in page.url
    page.wait_for_function(
        """() => [...document.querySelectorAll("canvas.look")].every((look) =>
        look.getContext("2d").getImageData(40, 40, 1, 1).data[3] === 255)"""
    )


def test_search_by_coordinates_and_for_nothing(page):
    place = fabricate.locations(9).iloc[7]
    search(page, f"{place.lat:.4f}, {place.lon:.4f}")
    page.wait_for_selector(f"h2:has-text('{place.location_id}')")
    search(page, "nowhere at all")
    page.wait_for_function("() => document.getElementById('status').textContent.includes('nowhere at all')")
    search(page, "95, 10")
    page.wait_for_function("() => document.getElementById('status').textContent.includes('no place')")


def test_click_on_a_location_opens_it(page):
    search(page, "P004")
    page.wait_for_selector("h2:has-text('P004')")
    page.evaluate("document.getElementById('place').replaceChildren()")
    page.evaluate("document.getElementById('canvas').scrollIntoView()")
    box = page.locator("#canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("h2:has-text('P004')")


def test_without_a_notice_the_map_still_fills_the_page(browser, written, tmp_path):
    shutil.copytree(written, tmp_path / "copy")
    listing = json.loads((tmp_path / "copy" / "datasets.json").read_text())
    listing["datasets"][0]["notice"] = None
    (tmp_path / "copy" / "datasets.json").write_text(json.dumps(listing))
    with explore_page.served(tmp_path / "copy") as url:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        assert page.locator("#canvas").bounding_box()["height"] > DESKTOP["height"] / 2
        page.close()


def test_keyboard_moves_and_opens(page):
    page.focus("#canvas")
    for key in ("ArrowLeft", "ArrowUp", "+", "-", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("h2#title")


def test_every_coloring_paints_and_names_its_classes(page):
    seen = {}
    for value in page.eval_on_selector_all("#coloring option", "options => options.map((o) => o.value)"):
        page.select_option("#coloring", value)
        title = page.locator(f"#coloring option[value={value}]").inner_text()
        page.wait_for_function(
            "title => document.querySelector('#legend p').textContent.startsWith(title)", arg=title
        )
        seen[value] = page.inner_text("#legend")
    assert list(seen) == ["biome", "source", "day", "cloud", "outcome", "count"]
    assert len(set(seen.values())) == 6
    assert "Boreal Forests" in seen["biome"] and "stored" in seen["outcome"] and "of 4" in seen["count"]


def test_switching_the_coloring_changes_what_is_painted(page):
    search(page, "P004")
    page.wait_for_selector("h2:has-text('P004')")
    before = page.locator("#canvas").screenshot()
    page.select_option("#coloring", "day")
    page.wait_for_function("() => document.querySelector('#legend p').textContent.startsWith('Date')")
    page.wait_for_timeout(200)
    assert page.locator("#canvas").screenshot() != before


def test_a_link_opens_the_location_it_names(browser, address):
    page = browser.new_page(viewport=DESKTOP)
    page.goto(f"{address}#dataset=made&location=P002")
    page.wait_for_selector("h2:has-text('P002')")
    page.close()


def test_a_lost_file_is_told(browser, address, written, tmp_path):
    shutil.copytree(written, tmp_path / "copy")
    (tmp_path / "copy" / "made" / "0.json").unlink()
    with explore_page.served(tmp_path / "copy") as url:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        search(page, "P000")
        page.wait_for_selector("#status.failed")
        assert "0.json" in page.inner_text("#status")
        page.close()


@needs_npm
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("path", ["", "report.html"], ids=["explore", "report"])
def test_axe_finds_nothing_serious(browser, address, path, viewport):
    page = browser.new_page(viewport=viewport)
    page.goto(address + path)
    if not path:
        page.wait_for_selector("body[data-ready]")
        search(page, "P004")
        page.wait_for_selector("h2:has-text('P004')")
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("axe.run()")["violations"]
    serious = {
        v["id"]: [n["html"][:120] for n in v["nodes"]]
        for v in found
        if v["impact"] in ("serious", "critical")
    }
    assert not serious, json.dumps(serious, indent=1)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]
    page.close()


@needs_npm
def test_the_bundle_is_what_the_pinned_libraries_give(tmp_path):
    words = ["node_modules/.bin/esbuild", "vendor.js", "--bundle", "--minify", "--format=esm"]
    words += ["--target=es2022", "--legal-comments=none", f"--outfile={tmp_path / 'vendor.js'}"]
    subprocess.run(words, cwd=WEB, check=True, capture_output=True)
    assert (tmp_path / "vendor.js").read_bytes() == (STATIC / "vendor.js").read_bytes()

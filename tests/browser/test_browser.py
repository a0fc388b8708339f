"""The status page in a real Chromium: it renders, narrows, leads on, stays true by itself, and reads by keyboard and on a phone."""

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from stac_watch.model.states import Fact

PICTURES = Path(os.environ.get("STAC_WATCH_PICTURES") or Path(__file__).parents[2] / "build" / "pictures")
DARK, PHONE = {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}


def picture(page, name):
    """Kept for people: `make pictures` writes those that the documentation shows."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def contrast(page, selector):
    """The lowest WCAG contrast of the texts that a selector finds, with the nearest background that is not transparent."""
    return page.evaluate(
        """(selector) => {
          const parts = (text) => text.match(/[\\d.]+/g).map(Number);
          const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const light = (rgb) => rgb.slice(0, 3).map((v) => linear(v / 255))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (node) => {
            for (; node; node = node.parentElement) {
              const color = parts(getComputedStyle(node).backgroundColor);
              if (color.length < 4 || color[3] > 0) return color;
            }
            return [255, 255, 255];
          };
          return Math.min(...[...document.querySelectorAll(selector)].filter((n) => n.textContent.trim()).map((n) => {
            const [a, b] = [light(parts(getComputedStyle(n).color)), light(behind(n))].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
          }));
        }""",
        selector,
    )


@pytest.mark.parametrize(("page", "name"), [({}, "status"), (DARK, "status-dark"), (PHONE, "status-phone")], indirect=["page"])
def test_it_renders_in_light_and_dark_and_on_a_phone(page, name):
    expect(page.locator("#stream")).to_have_text("live")
    for title in (
        "Where conversions are",
        "How far",
        "How long steps take",
        "Backfills",
        "Where items lie",
        "What failed alike",
        "In flight",
    ):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"the page is {wide} px wider than its window"
    assert contrast(page, "h1, h2, td, th, p, span.soft, nav a, footer, .figure b") >= 4.5
    picture(page, name)


def test_it_narrows_by_period_source_and_lane(page):
    done = page.locator(".figure.done b")
    of_all = int(done.inner_text())
    page.get_by_role("link", name="the last day").click()
    expect(page).to_have_url(re.compile(r"\?period=day$"))
    of_day = int(done.inner_text())
    assert 0 < of_day < of_all
    page.get_by_role("link", name="s2-l2a-africa", exact=True).click()
    expect(page).to_have_url(re.compile(r"\?period=day&source=s2-l2a-africa$"))
    assert 0 < int(done.inner_text()) < of_day
    assert page.get_by_role("link", name="s2-l2a-africa", exact=True).get_attribute("aria-current") == "true"
    page.get_by_role("link", name="backfill", exact=True).click()
    expect(done).to_have_text("0")


def test_it_stays_true_by_itself_and_leaves_focus_and_place(page, installation):
    expect(page.locator("#stream")).to_have_text("live")
    first = page.locator("nav a").nth(1)
    first.focus()
    page.evaluate("window.scrollTo(0, 300)")
    item = installation.sight("s2-l2a", "live", age=timedelta(hours=7))
    installation.pass_time(timedelta(seconds=3))
    installation.move(item, Fact.ACCEPTED)
    row = page.locator("td.id", has_text=item)
    expect(row.first).to_be_visible(timeout=10_000)
    expect(page).to_have_title(re.compile(r"^stac-watch · 4 failed, 3 running, \d+ done$"))
    assert page.evaluate("document.activeElement.getAttribute('href')") == first.get_attribute("href")
    assert page.evaluate("window.scrollY") == 300


def test_the_map_and_the_tables_lead_to_an_item_and_its_run(page):
    place = page.locator("svg.map a").first
    item = place.get_attribute("aria-label")
    place.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(item)
    expect(page.locator("th", has_text="catalog")).to_be_visible()
    page.go_back()
    page.locator("section", has_text="What failed alike").locator("td.id a").first.click()
    expect(page.locator("td", has_text="failed_permanent").first).to_be_visible()
    assert page.get_by_role("link", name=re.compile("^gz-")).get_attribute("href").startswith("https://argo.example.com/workflows/")
    page.locator("summary").first.click()
    expect(page.locator("pre").first).to_contain_text('"specversion": "1.0"')
    picture(page, "item")


def test_everything_can_be_reached_by_keyboard_in_the_order_it_is_read(page):
    expect(page.locator("#stream")).to_have_text("live")
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
    assert reached[:4] == ["the last hour", "the last day", "all time", "all"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for svg in page.locator("svg[role=img]").all():
        assert svg.get_attribute("aria-label")
    assert page.locator("html").get_attribute("lang") == "en"


def test_without_scripts_the_page_says_the_same_and_reloads_itself(browser, installation):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(installation.url)
    expect(page.get_by_role("heading", name="Where conversions are", exact=True)).to_be_visible()
    assert page.locator('noscript meta[http-equiv="refresh"], head meta[http-equiv="refresh"]').count() == 1
    context.close()

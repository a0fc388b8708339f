"""The status page in a real Chromium: it renders, narrows, leads on, stays true by itself, and reads by keyboard and on a phone."""

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from stac_watch.model.states import Fact

PICTURES = Path(os.environ.get("STAC_WATCH_PICTURES") or Path(__file__).parents[2] / "build" / "pictures")
TALLEST = 1400  # pixels of a picture: what is further down is seen on the page itself
DARK, PHONE = {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}


def picture(page, name):
    """Kept for people: `make pictures` writes those that the documentation shows."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    width, height = page.viewport_size["width"], page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, TALLEST)}
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True, clip=clip)


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
    for title in ("Needs attention", "Failures, grouped", "Items", "Running", "Map", "By source", "Freshness", "Backfills"):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"the page is {wide} px wider than its window"
    cut = page.evaluate("Math.max(...[...document.querySelectorAll('.cards')].map((box) => box.scrollWidth - box.clientWidth))")
    assert cut <= 0, f"a table of items is {cut} px wider than its place"
    assert contrast(page, "h1, h2, h3, td, th, p, span.soft, nav a, footer, .figure b, label, .pill") >= 4.5
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
    assert page.get_by_role("heading", name="Running").count() == 0  # the other source's
    page.get_by_role("link", name="backfill", exact=True).click()
    expect(done).to_have_text("0")
    expect(page.locator("#items")).to_contain_text("No item matches")
    assert page.locator("svg.map").count() == 0


def test_a_search_finds_an_item_and_its_words_stay_while_the_page_changes(page, installation):
    expect(page.locator("#stream")).to_have_text("live")
    wanted = page.locator("td.id a").last.inner_text()
    box = page.get_by_label("id, key or run")
    box.click()
    box.press_sequentially("t32")
    item = installation.sight("s2-l2a", "live", age=timedelta(hours=7))
    installation.pass_time(timedelta(seconds=3))
    expect(page.locator("table.list td.id", has_text=item)).to_be_visible(timeout=10_000)
    assert page.evaluate("document.activeElement.name") == "text"
    box.press_sequentially("tqm")
    expect(box).to_have_value("t32tqm")
    box.press("Enter")
    expect(page).to_have_url(re.compile(r"\?text=t32tqm&sort=changed#items$"))
    assert {cell.inner_text() for cell in page.locator("table.list td:nth-child(2)").all()} == {"T32TQM"}
    page.get_by_label("id, key or run").fill(wanted)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("table.list td.id")).to_have_text([wanted])
    page.get_by_role("link", name="show all").click()
    expect(page.locator("table.list td.id")).to_have_count(25)


def test_figures_lead_to_their_items_and_pages_to_the_next(page):
    page.locator("a.figure.failed").click()
    expect(page.locator("table.list td.id")).to_have_count(4)
    page.locator("a.figure.done").click()
    expect(page.locator("table.list td.id")).to_have_count(25)
    first = page.locator("table.list td.id").first.inner_text()
    page.get_by_role("link", name="next →").click()
    expect(page.locator("nav.pages span")).to_contain_text("26 to 50 of ")
    assert page.locator("table.list td.id", has_text=first).count() == 0
    page.get_by_role("link", name="acquired", exact=True).click()
    assert page.locator("th[aria-sort]").inner_text().startswith("acquired")
    expect(page.locator("nav.pages span")).to_contain_text("1 to 25 of ")


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


def test_the_map_is_zoomed_and_leads_to_the_items_of_a_tile(page):
    expect(page.locator("#stream")).to_have_text("live")
    svg = page.locator("svg.map")
    whole = svg.get_attribute("viewBox")
    page.get_by_role("button", name="closer").click()
    assert float(svg.get_attribute("viewBox").split()[2]) == pytest.approx(float(whole.split()[2]) / 2)
    page.get_by_role("button", name="all", exact=True).click()
    assert svg.get_attribute("viewBox") == whole
    tile = svg.locator("a[aria-label=T32TQM]")
    assert re.match(r"T32TQM: .*\d+ done", tile.locator("title").text_content())
    tile.click()
    expect(page).to_have_url(re.compile(r"\?tile=T32TQM#items$"))
    assert {cell.inner_text() for cell in page.locator("table.list td:nth-child(2)").all()} == {"T32TQM"}
    assert page.locator(".place.chosen").count() == 1


def test_a_list_leads_to_an_item_and_the_item_back(page):
    page.locator("a.figure.failed").click()
    page.locator("table.list td.id a").first.click()
    expect(page.locator("#stream")).to_have_text("live")
    expect(page.locator("td", has_text="failed_permanent").first).to_be_visible()
    assert page.get_by_role("link", name=re.compile("^gz-")).get_attribute("href").startswith("https://argo.example.com/workflows/")
    item = page.get_by_role("heading", level=1).inner_text()
    assert page.locator("code", has_text=f"stac-watch replay {item} --yes").count()
    page.locator("summary").first.click()
    expect(page.locator("pre").first).to_contain_text('"specversion": "1.0"')
    picture(page, "item")
    page.get_by_role("link", name="← all items").click()
    expect(page).to_have_url(re.compile(r"\?state=failed#items$"))


def test_everything_can_be_reached_by_keyboard_in_the_order_it_is_read(page):
    expect(page.locator("#stream")).to_have_text("live")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the list"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "text"
    stops = page.evaluate("""[...document.querySelectorAll('a, button, input:not([type=hidden]), select, [tabindex]')]
        .filter((n) => n.tabIndex >= 0 && n.compareDocumentPosition(document.querySelector('table.list')) & 4).length""")
    assert stops < 40
    assert page.evaluate("[...document.querySelectorAll('svg.map a')].every((n) => n.tabIndex < 0)")
    for svg in page.locator("svg[role=img]").all():
        assert svg.get_attribute("aria-label")
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_on_a_phone_an_item_is_a_card_with_tile_date_state_and_reason(page):
    page.locator("a.figure.failed").click()
    card = page.locator("table.list tr", has_text="is corrupt").first
    for words in ("failed", re.compile(r"T\d\d[A-Z]{3}"), re.compile(r"\d\d:\d\d")):
        expect(card).to_contain_text(words)
    window = page.evaluate("document.documentElement.clientWidth")
    for cell in card.locator("td").all():
        box = cell.bounding_box()
        assert box is None or 0 <= box["x"] <= box["x"] + box["width"] <= window
    assert page.locator("table.list tr").first.is_hidden()


def test_a_dead_watcher_is_a_red_band_with_the_time_of_the_last_news(opened, anew):
    with anew() as here:
        shown = opened(here.url, fails=True)
        page = shown.__enter__()
        expect(page.locator("#stream")).to_have_text("live")
        assert page.locator("#band").is_hidden()
    expect(page.locator("#band")).to_contain_text(re.compile(r"No news from the watcher since \d\d:\d\d:\d\d UTC"), timeout=15_000)
    assert page.locator("#live").evaluate("(node) => getComputedStyle(node).opacity") != "1"
    assert page.locator("#stream").inner_text() == "not connected"
    shown.__exit__(None, None, None)


def test_nothing_at_all_and_five_thousand_items(opened, anew):
    with anew() as here:
        with opened(here.url) as page:
            expect(page.get_by_role("heading", name="Nothing seen yet")).to_be_visible()
            expect(page.locator("#items")).to_contain_text("s2-l2a: its first look at https://stac.example.com")
        here.sight_many("s2-l2a", 5000)
        here.pass_time(timedelta(seconds=3))
        with opened(here.url) as page:
            expect(page.locator("nav.pages span")).to_have_text("1 to 25 of 5,000")
            expect(page.locator("table.list td.id")).to_have_count(25)
            expect(page.locator("svg.map .place")).to_have_count(20)
            assert len(page.content()) < 150_000
            page.goto(f"{here.url}?page=200")
            expect(page.locator("nav.pages span")).to_have_text("4,976 to 5,000 of 5,000")
            assert page.get_by_role("link", name="next →").count() == 0
            page.goto(f"{here.url}?tile=32TQM")
            expect(page.locator("nav.pages span")).to_have_text("1 to 25")
            page.get_by_role("link", name="next →").click()
            expect(page.locator("nav.pages span")).to_have_text("26 to 50")


def test_without_scripts_the_page_says_the_same_and_reloads_itself(browser, installation):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(installation.url)
    expect(page.get_by_role("heading", name="By source", exact=True)).to_be_visible()
    assert page.locator('noscript meta[http-equiv="refresh"], head meta[http-equiv="refresh"]').count() == 1
    page.locator("input[name=tile]").fill("32TQM")
    page.get_by_role("button", name="Search").click()
    assert {cell.inner_text() for cell in page.locator("table.list td:nth-child(2)").all()} == {"T32TQM"}
    context.close()

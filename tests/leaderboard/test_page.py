"""The page in a real browser: order, filters, keyboard, tooltips, links, themes, and names that would do harm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from support.browser import BOARD, Browser, started, thousand, with_browser
from support.records import record, three

from transferbench.leaderboard import build, page
from transferbench.leaderboard.column import Group, Row
from transferbench.leaderboard.columns import COST, LEADERBOARD
from transferbench.leaderboard.pooled_rows import pooled_rows
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.results.records import read_all

HOSTILE = ["<script>window.hacked=1</script>-s0", '"><img src=x onerror="window.hacked=1">-s0', "{{ 7*7 }}'-s0"]

COLUMNS = {column.name: column for column in [*COST, *LEADERBOARD]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = started()
    yield driver
    driver.quit()


@pytest.fixture
def board(browser: Browser) -> Iterator[Browser]:
    """The committed board, open; nothing may have been complained of, and nothing asked of the network, at the end."""
    browser.get_log("browser"), browser.get_log("performance")
    open_victims(browser, BOARD)
    yield browser
    quiet(browser)


def open_victims(browser: Browser, folder: Path) -> None:
    """The page, with its table of every victim unfolded."""
    browser.get((folder / "index.html").as_uri())
    browser.execute_script("document.getElementById('victims').open = true")


def quiet(browser: Browser) -> None:
    assert browser.get_log("browser") == []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            assert message["params"]["request"]["url"].partition(":")[0] in ("file", "data", "about", "chrome")


def rows_of(folder: Path) -> list[Row]:
    return leaderboard_rows(read_all(folder))


def shown(browser: Browser) -> list[str]:
    """The victims in the table, in their order."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#board tbody tr')].filter(row => row.offsetParent !== null)"
        ".map(row => row.querySelector('td.victim').textContent)"
    )
    return found


def click_head(browser: Browser, column: str) -> None:
    browser.execute_script("document.querySelector(`#board th[data-column='${arguments[0]}'] button`).click()", column)


def choose(browser: Browser, selector: str, value: str) -> None:
    browser.execute_script(
        "const one = document.querySelector(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event(one.type === 'search' ? 'input' : 'change'))",
        selector,
        value,
    )


def in_order(rows: list[Row], column: str, down: bool) -> list[str]:
    """Sorted as a reader expects: what was not measured last, equals as they were before."""
    measured = [row for row in rows if row[column] != ""]

    def key(row: Row) -> Any:
        return str(row[column]) if COLUMNS[column].text else float(row[column])

    # Equals keep their order, whichever way.
    keys = sorted({key(row) for row in measured}, reverse=down)
    measured = [row for wanted in keys for row in measured if key(row) == wanted]
    return [str(row["victim"]) for row in [*measured, *(row for row in rows if row[column] == "")]]


@with_browser
def test_every_heading_sorts(board: Browser) -> None:
    rows = rows_of(BOARD)
    heads = board.execute_script("return [...document.querySelectorAll('#board th')].map(head => head.dataset.column)")
    assert {"rank", "union_acc", "victim", "change_union", "forwards", "linf_expected"} <= set(heads)
    for column in heads:
        if column not in rows[0]:
            continue  # of cost.csv
        for _ in range(2):
            click_head(board, column)
            said = board.execute_script(
                "return document.querySelector(`#board th[data-column='${arguments[0]}']`).ariaSort", column
            )
            assert said in ("ascending", "descending")
            assert shown(board) == in_order(rows, column, said == "descending"), f"{column} {said}"
    assert (
        board.execute_script(
            "return [...document.querySelectorAll('#board th[aria-sort]:not([aria-sort=none])')].length"
        )
        == 1
    )


@with_browser
def test_filters_leave_what_fits(board: Browser) -> None:
    rows = rows_of(BOARD)
    choose(board, "select[data-column=method]", "finetune")
    assert set(shown(board)) == {str(row["victim"]) for row in rows if row["method"] == "finetune"}
    choose(board, "select[data-column=source]", "letters-madry-s1")
    fits = {row["victim"] for row in rows if (row["method"], row["source"]) == ("finetune", "letters-madry-s1")}
    assert set(shown(board)) == fits
    assert board.find_element("id", "victim-count").text == f"{len(fits)} of {len(rows)} victims"
    board.find_element("id", "reset").click()
    assert shown(board) == [row["victim"] for row in sorted(rows, key=lambda row: int(row["rank"]))]
    choose(board, "#search", "LWF")
    assert set(shown(board)) == {row["victim"] for row in rows if "lwf" in str(row["victim"])}
    board.find_element("id", "reset").click()
    choose(board, "#norm", "L2")
    visible = board.execute_script(
        "return [...document.querySelectorAll('#board th')].filter(one => one.offsetParent)"
        ".map(one => one.dataset.column)"
    )
    assert "l2_acc" in visible
    assert not {"linf_acc", "l1_acc", "pgd20_linf_acc"} & set(visible)
    assert len(shown(board)) == len(rows)


@with_browser
def test_groups_of_columns_are_shown_and_hidden(board: Browser) -> None:
    for box in board.find_elements("css selector", "input[data-group]"):
        group = box.get_attribute("data-group")
        columns = board.find_elements("css selector", f"#board th.g-{group}")
        assert columns
        for _ in range(2):
            box.click()
            assert {one.is_displayed() for one in columns} == {box.is_selected()}


@with_browser
def test_a_norm_that_was_not_measured_drops_its_row(browser: Browser, tmp_path: Path) -> None:
    page.write(tmp_path, three())
    open_victims(browser, tmp_path)
    assert set(shown(browser)) == {"whole-s0", "part-s0"}
    choose(browser, "#norm", "L1")
    assert shown(browser) == ["whole-s0"]
    click_head(browser, "union_acc")
    browser.find_element("id", "reset").click()
    click_head(browser, "union_acc")
    assert shown(browser) == ["whole-s0", "part-s0"], "what was not measured is last, whichever way"
    click_head(browser, "union_acc")
    assert shown(browser) == ["whole-s0", "part-s0"]
    quiet(browser)


@with_browser
def test_every_heading_says_what_it_is(board: Browser) -> None:
    for box in board.find_elements("css selector", "input[data-group]"):
        if not box.is_selected():
            box.click()
    tips = {}
    for button in board.find_elements("css selector", "#board th button"):
        board.execute_script("arguments[0].focus()", button)
        tip = board.find_element("id", "tip")
        assert tip.is_displayed()
        tips[button.find_element("xpath", "..").get_attribute("data-column")] = tip.text
    assert tips == {name: re.sub(r"\s+", " ", COLUMNS[name].meaning) for name in tips}
    assert len(tips) > 35
    board.execute_script("document.activeElement.blur()")
    assert not board.find_element("id", "tip").is_displayed()
    from selenium.webdriver import ActionChains

    board.execute_script("document.querySelector('#victims .scroll').scrollLeft = 0")
    ActionChains(board).move_to_element(board.find_element("css selector", "#board th.clean_acc button")).perform()
    assert board.find_element("id", "tip").text == COLUMNS["clean_acc"].meaning


@with_browser
def test_the_keyboard_reaches_everything(board: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    visible = board.execute_script(
        "return [...document.querySelectorAll('a[href],button,input,select,[tabindex=\"0\"]')]"
        ".filter(one => one.offsetParent !== null).length"
    )
    board.execute_script(
        "document.body.focus(); window.reached = new Set();"
        "document.addEventListener('focusin', event => window.reached.add(event.target))"
    )
    for _ in range(visible):
        board.switch_to.active_element.send_keys(Keys.TAB)
    assert board.execute_script("return window.reached.size") >= visible
    head = board.find_element("css selector", "#board th.union_acc button")
    board.execute_script("arguments[0].focus()", head)
    head.send_keys(Keys.ENTER)
    assert shown(board) == in_order(rows_of(BOARD), "union_acc", True)
    head.send_keys(Keys.ESCAPE)
    assert not board.find_element("id", "tip").is_displayed()
    outline = board.execute_script("return getComputedStyle(arguments[0]).outlineStyle", head)
    assert outline != "none", "where the focus is can be seen"


def links(text: str) -> set[str]:
    return {unquote(found) for found in re.findall(r'(?:href|src)="([^"#]+)"', text) if not found.startswith("data:")}


def test_every_link_of_the_committed_page_leads_somewhere() -> None:
    pages = [BOARD / "index.html", *sorted((BOARD / "pages").glob("*.html"))]
    assert len(pages) == 1 + len(read_all(BOARD))
    for one in pages:
        for link in links(one.read_text(encoding="utf-8")):
            assert "//" not in link, "nothing outside is asked or linked"
            assert (one.parent / link).is_file(), f"{one.name}: {link}"


@with_browser
def test_every_page_of_a_victim_opens_without_complaint(browser: Browser) -> None:
    for one in sorted((BOARD / "pages").glob("*-s0.html")):
        browser.get(one.as_uri())
        assert browser.find_element("css selector", "h1").text == one.stem
        assert "transferbench run letters-to-digits" in browser.find_element("css selector", "pre").text
        gallery = browser.find_element("css selector", ".gallery img")
        assert browser.execute_script("return arguments[0].naturalWidth", gallery) > 0
        quiet(browser)


@with_browser
def test_names_that_would_do_harm_are_text(browser: Browser, tmp_path: Path) -> None:
    records = [
        record(name, method=name, source=name, network=name, suite=name, flags=[name], protocol=name)
        for name in HOSTILE
    ]
    page.write(tmp_path, records)
    open_victims(browser, tmp_path)
    assert sorted(shown(browser)) == sorted(HOSTILE)
    for one in (tmp_path / "pages").glob("*.html"):
        browser.get(one.as_uri())
        assert browser.find_element("css selector", "h1").text in HOSTILE
        assert browser.execute_script("return window.hacked") is None
        assert len(browser.find_elements("css selector", "script")) == 1
    quiet(browser)


@with_browser
def test_a_thousand_rows_sort_at_once(browser: Browser, tmp_path: Path) -> None:
    """The clock is looked at by the benchmark; here the order, and that every row is still there."""
    many = thousand()
    page.write(tmp_path, many)
    open_victims(browser, tmp_path)
    click_head(browser, "victim")
    assert shown(browser) == sorted(one.victim for one in many)
    choose(browser, "#search", "v0999")
    assert shown(browser) == ["v0999-s0"]


@with_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(browser: Browser, theme: str) -> None:
    emulated = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    browser.get((BOARD / "index.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    pairs = browser.execute_script(
        "const paper = getComputedStyle(document.body).backgroundColor;"
        "return ['body', '.low', '.dim', '#board td a', '#board tr.first td.rank', '#methods button.open']"
        ".map(one => [getComputedStyle(document.querySelector(one)).color, paper])"
    )
    for ink, paper in pairs:
        assert contrast(ink, paper) >= 4.5
    dark = luminance(pairs[0][1]) < 0.2
    assert dark is (theme == "dark")
    browser.find_element("id", "theme").click()
    other = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(other) < 0.2) is not dark, "the button turns it round"
    browser.find_element("id", "theme").click()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    quiet(browser)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@with_browser
def test_a_phone_scrolls_the_table_and_not_the_page(browser: Browser) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for one in (BOARD / "index.html", BOARD / "pages" / "lwf-robust-s0.html"):
            browser.get(one.as_uri())
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
            wide = "const one = document.querySelector('.scroll'); return one.scrollWidth - one.clientWidth"
            assert one.name != "index.html" or browser.execute_script(wide) > 0, "it is the table that scrolls"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    quiet(browser)


def methods_shown(browser: Browser) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#methods tbody')].map(body => body.id)"
    )
    return found


@with_browser
def test_the_first_table_is_over_seeds_and_a_click_opens_them(board: Browser) -> None:
    records = read_all(BOARD)
    over_seeds = pooled_rows(records, rows_of(BOARD))
    bodies = board.find_elements("css selector", "#methods tbody")
    assert len(bodies) == len(over_seeds) > 10
    for body, one in list(zip(bodies, over_seeds, strict=True))[:3]:
        seeds = body.find_elements("css selector", "tr.seed")
        assert [row.is_displayed() for row in seeds] == [False] * len(one.seeds)
        body.find_element("css selector", "button.open").click()
        assert [row.find_element("css selector", "td.method").text for row in seeds] == [
            row["victim"] for row in one.rows
        ]
        links = [row.find_element("css selector", "a").get_attribute("href") for row in seeds]
        assert all(
            unquote(link).endswith(f"pages/{row['victim']}.html") for link, row in zip(links, one.rows, strict=True)
        )
    letters = board.find_element("css selector", "#methods td.letters [data-tip]")
    board.execute_script("arguments[0].focus()", letters)
    tip = board.find_element("id", "tip").text
    assert all(name in tip for name in over_seeds[0].beats)


@with_browser
def test_the_first_table_sorts_rows_with_their_seeds(board: Browser) -> None:
    before = methods_shown(board)
    for head in board.find_elements("css selector", "#methods th"):
        column = head.get_attribute("data-column")
        board.execute_script("arguments[0].querySelector('button').click()", head)
        cells = board.execute_script(
            "return [...document.querySelectorAll(`#methods tbody tr:first-child td.${arguments[0]}`)]"
            ".map(cell => cell.dataset.k)",
            column,
        )
        cells = [cell for cell in cells if cell]
        keys = (
            cells
            if "text" in head.get_attribute("class").split()
            else [float(re.split("(?<=.)-", c)[0]) for c in cells]
        )
        assert keys == sorted(keys, reverse=head.get_attribute("aria-sort") == "descending"), column
    assert sorted(methods_shown(board)) == sorted(before)


@with_browser
def test_the_column_that_ranks_stands_beside_the_rank_on_every_screen(browser: Browser) -> None:
    for width in (390, 800, 1600):
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        open_victims(browser, BOARD)
        for table in ("methods", "board"):
            heads = browser.execute_script(
                "return [...document.querySelectorAll(`#${arguments[0]} th`)].slice(0, 3)"
                ".map(head => [head.dataset.column, head.getBoundingClientRect().right])",
                table,
            )
            assert [name for name, _ in heads[:2]] == ["rank", "union_acc"]
            assert heads[1][1] < width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@with_browser
def test_a_link_to_a_row_opens_it(browser: Browser) -> None:
    browser.get((BOARD / "index.html").as_uri() + "#row-digits-eat-robust")
    body = browser.find_element("id", "row-digits-eat-robust")
    assert body.find_element("css selector", "tr.seed").is_displayed()
    browser.get((BOARD / "index.html").as_uri() + "#victim-lwf-robust-s1")
    assert browser.find_element("id", "victim-lwf-robust-s1").is_displayed()
    quiet(browser)


@with_browser
def test_print_shows_tables_whole_and_no_controls(browser: Browser) -> None:
    open_victims(browser, BOARD)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element("id", "theme").is_displayed()
    assert not browser.find_element("id", "search").is_displayed()
    style = "return getComputedStyle(document.querySelector('.scroll')).overflowX"
    assert browser.execute_script(style) == "visible"
    assert browser.find_element("css selector", "#methods button.open").is_displayed(), "the methods' names"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_page_is_a_function_of_what_lies_beside_it(tmp_path: Path) -> None:
    records = three()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        page.write(tmp_path / folder, records if folder == "a" else records[::-1])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(file) for file in files] == [
        "index.html", "page.css", "page.js", "pages/part-s0.html", "pages/src-s0.html", "pages/whole-s0.html",
    ]  # fmt: skip
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert page.check(tmp_path / "a", records) == []
    (tmp_path / "a" / "pages" / "whole-s0.html").write_text("other")
    (complaint,) = page.check(tmp_path / "a", records)
    assert "pages/whole-s0.html: differs from its records; transferbench leaderboard --html" in complaint
    assert page.check(tmp_path, records) == [], "no page, nothing to compare"
    page.write(tmp_path / "a", records[:2])
    assert not (tmp_path / "a" / "pages" / "part-s0.html").exists(), "a victim that is gone leaves no page"


def test_every_column_has_its_place() -> None:
    """Each is in a group, with a heading, or is an end of another's interval."""
    ends = {end for column in LEADERBOARD for end in column.interval or ()}
    assert ends == {column.name for column in LEADERBOARD if column.group is None}
    assert all(column.heading for column in COLUMNS.values() if column.group is not None)
    assert {column.group for column in COLUMNS.values()} == {*Group, None}


def test_the_committed_page_is_that_of_its_records() -> None:
    assert build.check(BOARD) == []
    assert (BOARD / "index.html").is_file()
    assert page.check(BOARD, read_all(BOARD)) == []


@with_browser
@pytest.mark.parametrize("hash", ["#50%", "#%E0%A4%A", '#"><script>'])
def test_a_malformed_hash_does_not_end_the_script(browser: Browser, hash: str) -> None:
    browser.get("about:blank")
    browser.get((BOARD / "index.html").as_uri() + hash)
    # The table is prepared after the hash was followed.
    browser.execute_script("document.querySelector('#board thead button').click()")
    assert browser.execute_script("return document.querySelector('#board th').getAttribute('aria-sort')") != "none"
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []

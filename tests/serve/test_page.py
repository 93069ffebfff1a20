"""The page of the server, in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import chromium, opened
from served import LABELS, Started

from einthoven.serve.description import ASSETS

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, client: httpx.Client) -> Iterator[Any]:
    with opened(browser, f"{client.base_url}/") as page:
        page.wait_for_selector("#model-line:not(:empty)")
        yield page


def give(page: Any, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.set_input_files("#file", file)


def show(page: Any, dicom: bytes) -> None:
    give(page, "ecg.dcm", dicom)
    page.wait_for_selector("#result:not([hidden])")


def test_assets_are_small_and_name_no_other_server() -> None:
    files = [file for file in ASSETS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 300_000
    for file in files:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text


def test_an_upload_shows_recording_and_prediction(page: Any, dicom: bytes) -> None:
    show(page, dicom)
    assert page.locator("#paper path[data-lead]").count() == 13  # 12 leads, and the rhythm strip
    names = page.locator("#predictions tbody th").all_inner_texts()
    assert set(names) == set(LABELS)  # as text, not as markup
    assert page.locator("#predictions b").count() == 0
    assert page.locator("#simulated").is_hidden()


def test_layout_leads_and_zoom_change_the_paper(page: Any, dicom: bytes) -> None:
    show(page, dicom)
    page.select_option("#layout", "rows")
    assert page.locator("#paper path[data-lead]").count() == 12
    page.uncheck("#leads input[value=aVR]")
    assert page.locator("#paper path[data-lead]").count() == 11
    width = page.locator("#paper svg").get_attribute("width")
    page.fill("#zoom", "8")
    assert int(page.locator("#paper svg").get_attribute("width")) > int(width)
    page.select_option("#speed", "50")
    assert page.locator("#start-row").is_visible()


def test_calipers_measure_by_pointer_and_keyboard(page: Any, dicom: bytes) -> None:
    show(page, dicom)
    page.fill("#zoom", "4")
    box = page.locator("#paper svg").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 140)  # 25 mm and 10 mm
    page.mouse.up()
    assert "1000 ms (60/min), 1.00 mV" in page.inner_text("#calipers")
    page.focus("#paper")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert "1200 ms" in page.inner_text("#calipers")
    page.keyboard.press("Escape")
    assert page.locator(".calipers").count() == 0


def test_a_label_shows_why(page: Any, dicom: bytes) -> None:
    show(page, dicom)
    page.click("#predictions button >> nth=0")
    page.wait_for_selector("#why:not([hidden])", timeout=120_000)
    assert page.locator("#paper path.for").count() > 0
    assert page.locator("#predictions button[aria-pressed=true]").count() == 1
    page.click("#predictions button[aria-pressed=true]")
    assert page.locator("#paper path.for").count() == 0


def test_the_example_is_marked_as_simulated(page: Any) -> None:
    page.click("#example")
    page.wait_for_selector("#result:not([hidden])")
    assert page.locator("#simulated").is_visible()


def test_a_csv_is_read_once_its_rate_is_stated(page: Any, csv: bytes) -> None:
    give(page, "ecg.csv", csv)
    assert page.locator("#result").is_hidden()
    page.fill("#stated input[name=rate]", "500")
    page.select_option("#stated select", "mV")
    page.click("#stated button")
    page.wait_for_selector("#result:not([hidden])")


def test_a_refusal_is_an_alert_with_a_remedy(page: Any) -> None:
    give(page, "ecg.dcm", b"nothing")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error p").count() == 2
    assert page.locator("#result").is_hidden()


def test_a_phone_shows_all_without_scrolling_sideways(
    browser: Any, client: httpx.Client, dicom: bytes
) -> None:
    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    with opened(browser, f"{client.base_url}/", **phone) as page:
        show(page, dicom)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        table = page.locator("#predictions .scroll")
        assert table.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_json_and_report_can_be_downloaded(page: Any, dicom: bytes, tmp_path: Path) -> None:
    show(page, dicom)
    for button, name in (("#download-json", "a.json"), ("#download-report", "a.html")):
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / name)
    answer = json.loads((tmp_path / "a.json").read_text())
    assert set(answer["probabilities"]) == set(LABELS)
    report = (tmp_path / "a.html").read_text()
    assert "<script" not in report
    assert report.count("data-lead=") == 13
    assert "&lt;b&gt;RARE" in report


def test_a_token_is_asked_for(browser: Any, started: Started, dicom: bytes) -> None:
    token = "0123456789abcdef"
    with (
        started(token=token) as client,
        opened(browser, f"{client.base_url}/") as page,
    ):
        page.wait_for_selector("#access:not([hidden])")
        page.fill("#token", token)
        page.click("#access button")
        page.wait_for_selector("#model-line:not(:empty)")
        show(page, dicom)


def test_addresses_are_listed(browser: Any, client: httpx.Client) -> None:
    with opened(browser, f"{client.base_url}/docs") as page:
        page.wait_for_selector("h2")
        assert page.locator("h2").count() == 7

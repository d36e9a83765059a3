"""The page in a real browser: a file is sent, watched and corrected, and axe finds nothing wrong in any state."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from orders_pipeline.clients.api_tokens import APPROVE, USUAL_SCOPES
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.web import server
from orders_pipeline_tests.support.api import csv_of
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation, check_books, work_off
from orders_pipeline_tests.support.page import page_token

playwright_api = pytest.importorskip("playwright.sync_api")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)

expect, Page, Route, Browser, Context = (
    playwright_api.expect,
    playwright_api.Page,
    playwright_api.Route,
    playwright_api.Browser,
    playwright_api.BrowserContext,
)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WAIT_MS = 20_000
expect.set_options(timeout=WAIT_MS)
DROP = """([selector, name, text]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([text], name, {type: "application/vnd.ms-excel"}));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.querySelector(selector).dispatchEvent(
            new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def client_code() -> str:
    return f"acme-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def context(chromium: Browser, complaints: list[str]) -> Iterator[Context]:
    """A browser of its own, in which scripts complain about nothing."""
    context = chromium.new_context(locale="en-GB", viewport={"width": 1100, "height": 800})
    context.set_default_timeout(WAIT_MS)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield context
    context.close()
    assert [each for each in complaints if "Failed to load resource" not in each] == []


@pytest.fixture
def page(context: Context, installation: Installation, url: str, client_code: str) -> Page:
    return signed_in(context, installation, url, client_code)


def signed_in(
    context: Context,
    installation: Installation,
    url: str,
    client_code: str | None,
    scopes: Sequence[str] = USUAL_SCOPES,
) -> Page:
    page = context.new_page()
    page.goto(f"{url}/send")
    page.locator("#token").fill(page_token(installation.system, client_code, scopes))
    with page.expect_navigation():  # to its end: a file that is chosen before the page's script is there is not seen
        page.keyboard.press("Enter")
    expect(page.locator("#token")).to_have_count(0)
    return page


def is_faultless(page: Page) -> None:
    """Demand that axe finds nothing, and that nothing is wider than the window."""
    found = axe_api.Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}})
    violations = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found.response["violations"]]
    assert violations == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page.url


def choose(page: Page, *rows: dict[str, str], name: str = "orders.csv") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "application/vnd.ms-excel", "buffer": csv_of(*rows)})
    expect(page.locator("#check-title")).to_be_visible()


def send(page: Page, *rows: dict[str, str], name: str = "orders.csv") -> str:
    """Check and send a file, and return its batch's id."""
    choose(page, *rows, name=name)
    page.locator("[data-do=send]").click()
    page.wait_for_url("**/b/*")
    return str(page.url.rpartition("/")[2])


def worked_off(installation: Installation, batch_id: str) -> threading.Thread:
    """Have a batch worked off beside the browser."""
    thread = threading.Thread(target=work_off, args=(installation.system, batch_id))
    thread.start()
    return thread


def bad_rows() -> list[dict[str, str]]:
    wrong = ({"order_date": "11/20"}, {"order_date": "11/20"}, {"email": "nobody"}, {"amount": "12,00"})
    return [order_row(client_order_ref=f"BAD-{at}", **cells) for at, cells in enumerate(wrong)]


@pytest.mark.parametrize(
    ("locale", "width", "scheme"),
    [("ja-JP", 1100, "light"), ("en-GB", 320, "dark"), ("ja-JP", 320, "light"), ("en-GB", 768, "light")],
)
def test_a_file_is_dropped_its_bad_rows_are_mended_and_all_is_paid(
    installation: Installation, chromium: Browser, url: str, client_code: str, locale: str, width: int, scheme: str
) -> None:
    context = chromium.new_context(locale=locale, viewport={"width": width, "height": 800}, color_scheme=scheme)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(url)
    assert page.locator("html").get_attribute("lang") == locale[:2]
    _sign_in_at_the_second_try(page, page_token(installation.system, client_code))
    batch_id = _drop_check_and_send(page, csv_of(*order_rows(6), *bad_rows()).decode())
    _wait_for_the_end(installation, page, batch_id, "completed_with_errors")
    correction = _correct(page)
    assert correction != batch_id
    _wait_for_the_end(installation, page, correction, "completed")
    page.goto(f"{url}/history")
    is_faultless(page)
    context.close()
    paid = installation.rows("SELECT status, count(*) FROM orders WHERE client_code = %s GROUP BY 1", client_code)
    assert paid == [("paid", 10)]
    for each in (batch_id, correction):
        check_books(installation, each)


def _sign_in_at_the_second_try(page: Page, token: str) -> None:
    is_faultless(page)
    page.locator("#token").fill("opk_no")
    page.locator("main button").click()
    expect(page.locator("#wrong")).to_be_visible()
    is_faultless(page)
    page.locator("#token").fill(token)
    page.locator("main button").click()
    page.wait_for_url("**/send")
    is_faultless(page)


def _drop_check_and_send(page: Page, text: str) -> str:
    page.evaluate(DROP, ["#drop", "注文 一覧①.csv", text])
    expect(page.locator("#check-title")).to_be_focused()
    is_faultless(page)
    page.locator("[data-do=fix]").click()
    expect(page.locator("#problems-title")).to_be_focused()
    is_faultless(page)
    page.locator("[data-do=send]").click()
    page.wait_for_url("**/b/*")
    expect(page.locator(".state-received")).to_be_visible()
    is_faultless(page)
    return str(page.url.rpartition("/")[2])


def _wait_for_the_end(installation: Installation, page: Page, batch_id: str, status: str) -> None:
    thread = worked_off(installation, batch_id)
    expect(page.locator(f".state-{status}")).to_be_visible()
    thread.join()
    is_faultless(page)


def _correct(page: Page) -> str:
    page.locator("#to-fix a").click()
    expect(page.locator("td.bad input")).to_have_count(4)
    is_faultless(page)
    replace_form = page.locator("form.replace").first
    replace_form.locator("input").fill("2026-11-20")
    replace_form.locator("button").click()
    expect(page.locator("td.changed")).to_have_count(2)
    page.locator("input[value='nobody']").fill("somebody@example.com")
    page.keyboard.press("Enter")
    page.locator("input[value='12,00']").fill("12,000円です")
    page.keyboard.press("Control+Enter")
    expect(page.locator("tr.is-bad")).to_have_count(1)
    is_faultless(page)
    page.locator("input[value='12,00']").fill("1200")
    page.keyboard.press("Control+Enter")
    expect(page.locator("tr.is-good")).to_have_count(4)
    expect(page.locator("#send")).to_be_focused()
    is_faultless(page)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "/fix" not in address)
    return str(page.url.rpartition("/")[2])


def test_what_an_operator_sees_has_no_fault(
    context: Context, installation: Installation, url: str, client_code: str, page: Page
) -> None:
    batch_id = send(page, *order_rows(3))
    installation.rows("UPDATE batches SET status_code = 'E_STORAGE_UNAVAILABLE' WHERE batch_id = %s", batch_id)
    operator = signed_in(context.browser.new_context(locale="en-GB"), installation, url, None)
    operator.goto(f"{url}/overview")
    expect(operator.locator("table").first).to_contain_text("E_STORAGE_UNAVAILABLE")
    is_faultless(operator)
    operator.goto(f"{url}/send")
    operator.locator("#client").fill(client_code)
    send(operator, *(order_row(client_order_ref=f"NEW-{at}") for at in range(2)))
    expect(operator.locator("#facts")).to_contain_text(client_code)
    is_faultless(operator)
    installation.work_off(batch_id)
    operator.goto(f"{url}/overview")
    operator.locator("details").first.click()
    expect(operator.locator(".chart rect")).not_to_have_count(0)
    is_faultless(operator)
    operator.context.close()


@pytest.mark.parametrize(("locale", "width", "says"), [("en-GB", 1100, "Stands still"), ("ja-JP", 320, "中断中")])
def test_a_page_that_is_open_says_that_its_file_stands_still_and_so_does_the_overview(
    chromium: Browser, installation: Installation, url: str, client_code: str, locale: str, width: int, says: str
) -> None:
    context = chromium.new_context(locale=locale, viewport={"width": width, "height": 800})
    page = signed_in(context, installation, url, client_code)
    batch_id = send(page, *order_rows(3))
    expect(page.locator(".lead .state")).not_to_have_text(says)
    installation.rows("UPDATE batches SET received_at = now() - interval '1 hour' WHERE batch_id = %s", batch_id)
    expect(page.locator(".lead .state")).to_have_text(says)
    is_faultless(page)
    operator = signed_in(
        chromium.new_context(locale=locale, viewport={"width": width, "height": 800}), installation, url, None
    )
    operator.goto(f"{url}/overview")
    expect(operator.locator(f"[aria-labelledby=waiting] tr:has(a[href='/b/{batch_id}']) .state")).to_have_text(says)
    is_faultless(operator)
    installation.work_off(batch_id)
    expect(page.locator(".lead .state")).not_to_have_text(says)
    for each in (operator.context, context):
        each.close()


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_an_operator_refunds_orders_once_what_it_comes_to_was_shown(
    installation: Installation, context: Context, url: str, page: Page, width: int, scheme: str
) -> None:
    batch_id = send(page, *(order_row(client_order_ref=f"R-{at}", amount="1500") for at in range(3)))
    installation.work_off(batch_id)
    size = {"width": width, "height": 800}
    other = context.browser.new_context(locale="en-GB", viewport=size, color_scheme=scheme)
    operator = signed_in(other, installation, url, None)
    operator.goto(f"{url}/b/{batch_id}")
    operator.get_by_role("link", name="Refund orders").click()
    operator.locator("#orders").fill("R-0 R-7")
    operator.get_by_role("button", name="Show what would be refunded").click()
    expect(operator.locator("#missing")).to_have_text("1 of them not in this file: R-7")
    is_faultless(operator)
    operator.locator("#orders").fill("R-0 R-2")
    operator.get_by_role("button", name="Show what would be refunded").click()
    button = operator.get_by_role("button", name="Refund 2 orders, ¥3,000")
    button.click()
    expect(button).to_be_visible()  # without a reason nothing is refunded
    is_faultless(operator)
    operator.locator("#reason").fill("sent\n back ")
    operator.locator("#orders").fill("R-0")
    expect(button).not_to_be_visible()  # of other orders than are shown nothing is confirmed
    operator.locator("#orders").fill("R-0\nR-2")
    other.set_offline(True)
    button.click()
    expect(operator.locator("#trouble")).to_contain_text("nothing is refunded twice")
    is_faultless(operator)
    other.set_offline(False)
    button.dblclick()
    expect(operator.locator("#says")).to_contain_text("Being refunded: 2 orders, ¥3,000.")
    is_faultless(operator)
    refunding.resume(installation.system, batch_id)
    expect(operator.locator("#says")).to_contain_text("Refunded since then: 2 orders, ¥3,000.")
    expect(operator.locator("#says")).not_to_contain_text("Being refunded")
    is_faultless(operator)
    other.close()
    made = installation.rows("SELECT amount, status, reason FROM refunds WHERE batch_id = %s", batch_id)
    assert made == [(3000, "succeeded", "sent back")]


def test_everything_can_be_done_with_the_keyboard_alone(installation: Installation, page: Page) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached")

    page.wait_for_load_state()  # before, a key that is pressed opens nothing
    page.bring_to_front()
    tab_to("#file")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files({"name": "o.csv", "mimeType": "", "buffer": csv_of(*order_rows(2), *bad_rows())})
    expect(page.locator("#check-title")).to_be_focused()
    tab_to("[data-do=send]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/b/*")
    work_off(installation.system, page.url.rpartition("/")[2])
    expect(page.locator("#to-fix a")).to_be_visible()
    tab_to("#to-fix a")
    page.keyboard.press("Enter")
    expect(page.locator("td.bad input")).to_have_count(4)
    tab_to("td.bad input")
    page.keyboard.press("Enter")  # the next row's cell of this column
    page.keyboard.type("x")
    page.keyboard.press("Escape")
    expect(page.locator("td.changed")).to_have_count(0)
    page.keyboard.press("Control+A")
    page.keyboard.type("2026-11-21")
    page.keyboard.press("Control+Enter")
    expect(page.locator("tr.is-good")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "/fix" not in address)


def test_rows_are_pasted_from_a_spreadsheet(installation: Installation, page: Page, client_code: str) -> None:
    rows = [order_row(client_order_ref="A-1", customer_name='株式会社"見本", 本店'), order_row(client_order_ref="A-2")]
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    lines[1] = [f'"{cell.replace(chr(34), chr(34) * 2)}"' if '"' in cell else cell for cell in lines[1]]
    page.locator("summary").first.click()
    page.locator("#pasted").fill("\r\n".join("\t".join(cells) for cells in lines) + "\r\n")
    page.locator("#paste button").click()
    expect(page.locator("#checked")).to_contain_text("All 2 orders can be taken")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/batches?*", hold)
    expect(page.locator("#not-sent")).to_be_visible()
    page.locator("[data-do=send]").click()
    expect(page.locator("#busy")).to_be_visible()
    expect(page.locator("#not-sent")).not_to_be_visible()
    held[0].continue_()
    page.wait_for_url("**/b/*")
    batch_id = page.url.rpartition("/")[2]
    installation.work_off(batch_id)
    assert installation.rows("SELECT status, rows_accepted FROM batches WHERE batch_id = %s", batch_id) == [("completed", 2)]


def test_a_file_that_came_before_leads_to_its_result_and_one_that_cannot_be_taken_says_why(page: Page) -> None:
    batch_id = send(page, *order_rows(2))
    page.go_back()
    page.set_input_files("#file", {"name": "again.csv", "mimeType": "", "buffer": csv_of(*order_rows(2))})
    expect(page.locator("#trouble a")).to_have_attribute("href", f"/b/{batch_id}")
    assert page.locator("#trouble").bounding_box()["y"] < page.locator("#drop").bounding_box()["y"]
    is_faultless(page)
    page.set_input_files("#file", {"name": "other.csv", "mimeType": "", "buffer": b"a,b\r\n1,2\r\n"})
    expect(page.locator("#checked")).to_contain_text("Required columns are missing")
    is_faultless(page)
    page.locator("[data-do=discard]").click()
    expect(page.locator("#file")).to_be_focused()
    page.set_input_files("#file", {"name": "pages.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"})
    expect(page.locator("#trouble")).to_contain_text("Choose a CSV or Excel (.xlsx) file")


def test_a_batch_is_cancelled_after_a_question(installation: Installation, page: Page) -> None:
    batch_id = send(page, *order_rows(2))
    page.locator("#ask-cancel").click()
    expect(page.locator("#cancel-dialog")).to_be_visible()
    is_faultless(page)
    page.keyboard.press("Escape")
    expect(page.locator("#cancel-dialog")).not_to_be_visible()
    expect(page.locator(".state-received")).to_be_visible()
    page.locator("#ask-cancel").click()
    page.locator("#cancel-dialog .danger").click()
    expect(page.locator("#cancel-dialog")).to_be_visible()  # without a reason nothing is cancelled
    page.locator("#cancel-reason").fill("a\ntest")
    page.locator("#cancel-dialog .danger").click()
    expect(page.locator(".state-cancelling")).to_be_visible()
    thread = worked_off(installation, batch_id)
    expect(page.locator(".state-cancelled")).to_be_visible()
    thread.join()
    expect(page.locator("#cancelled")).to_contain_text("Cancelled by a desk")
    is_faultless(page)
    assert installation.rows("SELECT cancelled_why FROM batches WHERE batch_id = %s", batch_id) == [("a test",)]


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_a_batch_that_waits_is_approved_or_refused_by_somebody_else(
    installation: Installation, context: Context, client_code: str, decision: str
) -> None:
    profile = Profile.model_validate({"approval": "always"})
    system = replace(installation.system, clients=Clients({client_code: profile}))
    with server.serving(system, 0) as url:
        clerk = signed_in(context, installation, url, client_code)
        batch_id = send(clerk, *order_rows(3))
        thread = threading.Thread(target=work_off, args=(system, batch_id))
        thread.start()
        expect(clerk.locator(".state-awaiting_approval")).to_be_visible()
        thread.join()
        expect(clerk.locator("#approval button")).to_have_count(0)
        is_faultless(clerk)
        other = context.browser.new_context(locale="en-GB")
        manager = signed_in(other, installation, url, client_code, [*USUAL_SCOPES, APPROVE])
        manager.goto(f"{url}/b/{batch_id}")
        is_faultless(manager)
        if decision == "approve":
            manager.locator("[data-ask=approve-dialog]").click()
            expect(manager.locator("#approve-says")).to_have_text("3 orders, ¥3,000 in all, will be paid.")
            is_faultless(manager)
            manager.locator("[data-post=approve]").click()
        else:
            manager.locator("[data-ask=refuse-dialog]").click()
            is_faultless(manager)
            manager.locator("#reason").fill("a wrong month")
            manager.locator("#refuse-dialog button.danger").click()
        expect(manager.locator("#approval")).to_contain_text("Approved by" if decision == "approve" else "Refused by")
        is_faultless(manager)
        installation.run(batch_id)
        expect(clerk.locator(f".state-{'completed' if decision == 'approve' else 'cancelled'}")).to_be_visible()
        other.close()
        clerk.close()
    orders = installation.rows("SELECT status, count(*) FROM orders WHERE batch_id = %s GROUP BY 1", batch_id)
    assert orders == [("paid" if decision == "approve" else "cancelled", 3)]


def test_what_was_typed_is_kept_over_all_pages_of_rows_and_not_left_without_a_question(
    installation: Installation, page: Page
) -> None:
    batch_id = send(page, *(order_row(client_order_ref=f"B-{at}", amount="x") for at in range(101)), order_row())
    installation.work_off(batch_id)
    page.goto(page.url + "/fix")
    page.locator("td.bad input").first.fill("100")
    page.locator("nav.pages a").click()
    expect(page.locator("td.bad input")).to_have_count(1)
    page.locator("td.bad input").fill("200")
    page.keyboard.press("Tab")
    expect(page.locator("#count")).to_have_text("2 rows changed")
    page.locator(".switches a").first.click()
    expect(page.locator("th[data-column]").nth(5)).to_be_visible()
    page.locator("button.whole").click()
    expect(page.locator("td.bad input")).to_have_value("200")
    page.locator("nav.pages a").click()
    expect(page.locator("td.bad input").first).to_have_value("100")
    questions: list[str] = []
    page.on("dialog", lambda dialog: (questions.append(dialog.type), dialog.dismiss()))
    page.locator(".product").click(no_wait_after=True)
    expect(page.locator("td.bad input").first).to_have_value("100")
    assert questions == ["beforeunload"]
    page.locator("#undo").click()
    expect(page.locator("#count")).to_have_text("1 row changed")


def test_a_whole_row_is_edited_in_all_its_columns_but_hidden_ones(installation: Installation, page: Page) -> None:
    wrong = order_row(client_order_ref="BAD", item_code="SKU-1", quantity="3", unit_price="100", amount="299")
    batch_id = send(page, *order_rows(1), wrong)
    installation.work_off(batch_id)
    page.goto(page.url + "/fix")
    expect(page.locator("td input")).to_have_count(3)
    is_faultless(page)
    page.locator("td input").nth(0).fill("13")
    page.locator("button.whole").click()
    expect(page.locator("input[value='SKU-1']")).to_be_visible()
    expect(page.locator("input[value='3']")).to_have_value("13")
    expect(page.locator("button.whole")).to_have_count(0)
    expect(page.locator("input[value='orders@example.com']")).to_have_count(0)
    is_faultless(page)


def test_the_first_click_on_check_after_typing_is_not_lost(installation: Installation, page: Page) -> None:
    batch_id = send(page, *order_rows(1), order_row(client_order_ref="BAD", amount="x"))
    installation.work_off(batch_id)
    page.goto(page.url + "/fix")
    for amount in ("100", "y", "200"):  # also where what the last check said goes away
        page.locator("td.bad input").fill(amount)
        place = page.locator("#check").bounding_box()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + 3)
        page.mouse.down()
        page.mouse.up()
        expect(page.locator("#count")).to_contain_text(f"{int(amount != 'y')} of 1 changed rows can be taken.")


def test_an_answer_to_a_check_judges_only_what_was_checked(installation: Installation, page: Page) -> None:
    batch_id = send(page, *order_rows(1), *(order_row(client_order_ref=f"B-{at}", amount="x") for at in range(3)))
    installation.work_off(batch_id)
    page.goto(page.url + "/fix")
    cells, held = page.locator("td.bad input"), list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/edits?dry_run=true", hold)
    for at, amount in enumerate(("100", "200")):
        cells.nth(at).fill(amount)
    cells.nth(1).press("Control+Enter")
    expect(page.locator("#count")).to_have_text("Checking…")
    cells.nth(1).press("End")
    page.keyboard.type("y")  # nothing has left the cell yet
    with page.expect_response("**/edits?dry_run=true"):
        held[0].continue_()
    expect(page.locator("#count")).to_have_text("2 rows changed – Changed since the check. Check again.")
    expect(cells.nth(1)).to_have_value("200y")
    expect(cells.nth(1)).to_be_focused()
    expect(page.locator("tr.is-good")).to_have_count(1)
    expect(page.locator("tr[data-row]").nth(1).locator(".row-state")).to_have_text("changed, not checked yet")
    expect(page.locator("#send")).not_to_be_visible()
    is_faultless(page)
    cells.nth(1).press("Control+Enter")
    cells.nth(1).fill("300")
    cells.nth(1).press("Control+Enter")  # and of two checks the last one counts, whichever is answered first
    cells.nth(2).focus()
    expect(page.locator("tr.is-changed")).to_have_count(1)
    for route in (held[2], held[1]):
        with page.expect_response("**/edits?dry_run=true"):
            route.continue_()
        expect(page.locator("#send")).to_have_text("Send 2 rows, ¥400")
    expect(cells.nth(2)).to_be_focused()
    expect(page.locator("tr.is-good")).to_have_count(2)
    cells.nth(0).fill("150")
    page.keyboard.press("Tab")
    expect(page.locator("#send")).not_to_be_visible()  # what it says is not what would be sent any more


def test_after_a_check_only_what_it_found_is_said(installation: Installation, page: Page) -> None:
    batch_id = send(page, *order_rows(1), order_row(client_order_ref="BAD", amount="x", email="nobody"))
    installation.work_off(batch_id)
    page.goto(page.url + "/fix")
    mended = page.locator("td.bad", has=page.locator("input[value='x']"))
    left = page.locator("td.bad", has=page.locator("input[value='nobody']"))
    mended.locator("input").fill("100")
    page.locator("#check").click()
    expect(page.locator("tr.is-bad")).to_have_count(1)
    expect(mended.locator(".says")).not_to_be_visible()
    expect(mended.locator("input")).to_have_attribute("aria-invalid", "false")
    expect(left.locator(".says")).to_be_visible()
    expect(left.locator("input")).to_have_attribute("aria-invalid", "true")
    is_faultless(page)
    page.locator("#undo").click()
    expect(mended.locator(".says")).to_be_visible()


def test_a_row_that_another_one_kept_back_is_sent_unchanged(installation: Installation, page: Page) -> None:
    rows = [order_row(client_order_ref="A-6", amount=amount) for amount in ("1500", "1800")]
    batch_id = send(page, *order_rows(1), *rows)
    installation.work_off(batch_id)
    page.goto(page.url + "/fix")
    page.locator("#check").click()
    expect(page.locator("#count")).to_contain_text("No row can be taken as it is")
    keep = page.locator("button.keep")
    keep.nth(0).click()
    page.locator("#check").click()
    expect(page.locator("tr.is-good .row-state")).to_have_text(["can be taken as it is"])
    expect(page.locator("#send")).to_have_text("Send 1 row, ¥1,500")
    is_faultless(page)
    keep.nth(0).click()
    expect(page.locator("#send")).not_to_be_visible()
    page.locator("td.bad input").nth(1).fill("A-8")
    page.locator("#check").click()
    expect(page.locator("tr.is-good .row-state")).to_have_text(["can be taken as it is", "can be taken"])
    expect(page.locator(".groups .left")).to_have_text(["0 left"])
    is_faultless(page)
    page.locator("td.bad input").nth(1).fill("A-6")
    page.keyboard.press("Tab")
    expect(page.locator("tr.is-good")).to_have_count(0)  # what was found of the other was found beside this one
    expect(page.locator("#send")).not_to_be_visible()
    page.locator("td.bad input").nth(1).fill("A-8")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#send")).to_have_text("Send 2 rows, ¥3,300")
    page.locator("#send").click()
    page.wait_for_url(lambda address: "/fix" not in address)
    correction = page.url.rpartition("/")[2]
    installation.work_off(correction)
    paid = installation.rows("SELECT client_order_ref, status FROM orders WHERE batch_id = %s ORDER BY 1", correction)
    assert paid == [("A-6", "paid"), ("A-8", "paid")]


def test_a_file_of_which_every_row_waits_for_a_decision_is_sent_and_decided_on_row_by_row(
    installation: Installation, context: Context, client_code: str
) -> None:
    skip, reject = {"header": "Status", "values": ["cancelled"]}, {"header": "Refunded", "except": ["0"]}
    system = replace(
        installation.system, clients=Clients({client_code: Profile.model_validate({"skip": [skip], "reject": [reject]})})
    )
    refunded = [{"Status": "paid", "Refunded": yen} for yen in ("300", "200")]
    rows = [order_row(client_order_ref=f"DECIDE-{at}", amount="1000") | cells for at, cells in enumerate(refunded)]
    with server.serving(system, 0) as url:
        clerk = signed_in(context, installation, url, client_code)
        choose(clerk, *rows)
        expect(clerk.locator("[data-do=send]")).to_have_text("Send, and decide on 2 rows")
        is_faultless(clerk)
        clerk.locator("[data-do=send]").click()
        clerk.wait_for_url("**/b/*")
        work_off(system, clerk.url.rpartition("/")[2])
        clerk.goto(clerk.url + "/fix")
        decisions = clerk.locator("button.decide")
        expect(decisions).to_have_text(["Charge (Refunded: empty)", "Do not charge (Status: cancelled)"] * 2)
        for at in (0, 1, 2):  # the first row is thought better of
            decisions.nth(at).click()
        expect(clerk.locator("tr[data-row='1'] td.changed input")).to_have_value("cancelled")
        clerk.locator("#check").click()
        expect(clerk.locator(".row-state")).to_have_text(["will not be charged", "can be taken"])
        expect(clerk.locator("#count")).to_contain_text("1 of 2 changed rows can be taken. 1 row will not be charged.")
        is_faultless(clerk)
        clerk.locator("#send").click()
        clerk.wait_for_url(lambda address: "/fix" not in address)
        work_off(system, clerk.url.rpartition("/")[2])
        clerk.reload()
        expect(clerk.locator("#to-fix")).to_contain_text("All rows that were to be corrected have been.")
        is_faultless(clerk)
    charged = "SELECT client_order_ref FROM orders WHERE client_code = %s AND status = 'paid'"
    assert installation.rows(charged, client_code) == [("DECIDE-1",)]


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (768, "light"), (1280, "light")])
def test_what_tells_rows_and_columns_apart_stays_in_sight(
    installation: Installation, page: Page, width: int, scheme: str
) -> None:
    wrong = [{"payment_method": "?"}, {"amount": "x"}, {"order_date": "11/20"}, {"email": "no"}, {"customer_code": "株"}]
    rows = [order_row(client_order_ref=f"R-{at}", **wrong[at % len(wrong)]) for at in range(20)]
    batch_id = send(page, *order_rows(20), *rows)
    installation.work_off(batch_id)
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(page.url + "/fix")
    last = page.locator("tr[data-row]").last
    expect(last.locator(".row-wrong a")).to_have_text(["customer_code"])
    page.locator("#rows").evaluate("box => box.scrollTo(box.scrollWidth, box.scrollHeight)")
    expect(last.locator("th")).to_contain_text("R-19")
    for shown in (last.locator("th strong"), page.locator(".grid thead th").first, page.locator(".grid thead th").last):
        place, box = shown.bounding_box(), page.locator("#rows").bounding_box()
        assert box["x"] - 1 <= place["x"] <= place["x"] + place["width"] <= box["x"] + box["width"] + 1
        assert box["y"] - 1 <= place["y"] <= box["y"] + box["height"]
    is_faultless(page)
    page.locator("tr[data-row] .row-wrong a").first.click()
    expect(page.locator("tr[data-row]").first.locator("td.bad input")).to_be_focused()
    expect(page.locator("tr[data-row]").first.locator("td.bad input")).to_be_in_viewport()


def test_of_two_people_who_correct_the_same_row_the_second_is_told(
    context: Context, installation: Installation, page: Page
) -> None:
    batch_id = send(page, *order_rows(1), order_row(client_order_ref="BAD", amount="x"))
    installation.work_off(batch_id)
    first, second = context.new_page(), context.new_page()
    for each, value in ((first, "100"), (second, "200")):
        each.goto(page.url + "/fix")
        each.locator("td.bad input").fill(value)
        each.keyboard.press("Control+Enter")
        expect(each.locator("#send")).to_be_visible()
    first.locator("#send").click()
    first.wait_for_url(lambda address: "/fix" not in address)
    installation.work_off(first.url.rpartition("/")[2])
    second.locator("#send").click()
    expect(second.locator("#trouble")).to_contain_text("corrected already")
    is_faultless(second)


def test_a_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(
    installation: Installation, context: Context, client_code: str
) -> None:
    system = replace(installation.system)
    with server.serving(system, 0) as url:
        page = signed_in(context, installation, url, client_code)
        batch_id = send(page, *order_rows(2))
        expect(page.locator(".state-received")).to_be_visible()
    expect(page.locator("#lost")).to_be_visible()
    is_faultless(page)
    with server.serving(system, int(url.rpartition(":")[2])):
        work_off(installation.system, batch_id)
        expect(page.locator(".state-completed")).to_be_visible()
        expect(page.locator("#lost")).not_to_be_visible()
        page.close()

"""The page without a browser: who is let in, what is shown to whom, and what becomes of cells that somebody has changed."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import requests
from pydantic import SecretStr

from orders_pipeline.clients import api_tokens
from orders_pipeline.clients.api_tokens import APPROVE, CONTROL, PAGE, READ, READ_REJECTED, REFUND, WRITE
from orders_pipeline.clients.profiles import Clients, Profile
from orders_pipeline.clients.users import read_users
from orders_pipeline.intake import steps
from orders_pipeline.settlement.batch_settlement import settling
from orders_pipeline.settlement.refunds import refunding
from orders_pipeline.settlement.refunds.plan import read_plan, write_plan
from orders_pipeline.system.composition import following_files
from orders_pipeline.upkeep import cancelling
from orders_pipeline.web.page import edits as taking
from orders_pipeline.web.page import fixing, views
from orders_pipeline.web.page.rendering import STATIC
from orders_pipeline_tests.support.api import csv_of, served
from orders_pipeline_tests.support.factories import order_row, order_rows
from orders_pipeline_tests.support.installation import Installation, check_books, prepare
from orders_pipeline_tests.support.page import OWN, Browser, page_token, signed_in

CARD = "4111111111111111"
AMOUNT = list(order_row()).index("amount")


@pytest.fixture
def client_code() -> str:
    return f"acme-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def clerk(installation: Installation, url: str, client_code: str) -> Browser:
    return signed_in(installation.system, url, client_code)


def send(browser: Browser, body: bytes, name: str = "orders.csv", **query: str) -> str:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    answer = browser.post("/v1/batches", OWN | key, params={"name": name, **query}, data=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["batch_id"])


def with_bad_rows(installation: Installation, browser: Browser, *bad: Mapping[str, str], **more: str) -> str:
    """Return a batch of four good orders and some bad ones, which is worked off."""
    rows = [*order_rows(4), *(order_row(client_order_ref=f"BAD-{at}", **cells) for at, cells in enumerate(bad, 1))]
    batch_id = send(browser, csv_of(*rows), **more)
    installation.work_off(batch_id)
    return batch_id


def cells_of(page: str) -> dict[tuple[int, int], str]:
    """Return what may be changed on a page of rows, by row and cell."""
    found = {}
    for row, line in re.findall(r'<tr data-row="(\d+)">(.*?)</tr>', page, re.DOTALL):
        for cell, value in re.findall(r'<input data-cell="(\d+)" value="([^"]*)"', line):
            found[int(row), int(cell)] = value
    return found


def edits(*changes: tuple[int, int, str | None, str]) -> dict[str, Any]:
    return {"edits": [{"row": row, "cell": cell, "old": old, "new": new} for row, cell, old, new in changes]}


def corrected(
    browser: Browser,
    batch_id: str,
    *changes: tuple[int, int, str | None, str],
    unchanged: Sequence[int] = (),
    dry: bool = False,
) -> requests.Response:
    headers = OWN | {"Idempotency-Key": uuid.uuid4().hex}
    query = {"dry_run": "true"} if dry else {}
    body = edits(*changes) | {"unchanged": [*unchanged]}
    return browser.post(f"/b/{batch_id}/edits", headers, params=query, json=body)


def problem(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["type"]).removeprefix("/problems/")


def test_who_has_not_signed_in_is_led_to_where_that_is_done_and_back(
    installation: Installation, url: str, client_code: str
) -> None:
    browser = Browser(url)
    page = browser.get("/history")
    assert page.url == f"{url}/sign-in?next=%2Fhistory"
    assert 'name="next" value="/history"' in page.text
    answer = browser.sign_in(page_token(installation.system, client_code), next="/history")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/history")
    assert client_code in browser.get("/history").text


@pytest.mark.parametrize(
    "target", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "/a\r\nb", ""]
)
def test_nobody_is_led_elsewhere_by_signing_in(installation: Installation, url: str, client_code: str, target: str) -> None:
    answer = Browser(url).sign_in(page_token(installation.system, client_code), next=target)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert (
        Browser(url)._session.get(f"{url}/language/ja", params={"next": target}, allow_redirects=False).headers["Location"]
        == "/"
    )


def test_a_token_that_is_unknown_revoked_or_not_for_the_page_signs_nobody_in(
    installation: Installation, url: str, client_code: str
) -> None:
    database = installation.system.database
    for_programs = api_tokens.new(database, client_code, "a program", [READ], 30, "a test").text
    revoked = page_token(installation.system, client_code)
    api_tokens.revoke(database, revoked[4:12])
    for token in ("", "opk_", "opk_aaaaaaaa_" + "A" * 43, for_programs, revoked, "a" * 4000):
        browser = Browser(url)
        answer = browser.sign_in(token)
        assert (answer.status_code, len(browser.cookies)) == (403, 0)
        assert "cannot be used to sign in" in answer.text
        assert len(token) < 10 or token not in answer.text
    assert Browser(url).sign_in("a" * 5000).status_code == 413
    assert Browser(url).get("/sign-in", code="wrong").status_code == 403


def test_a_client_and_a_user_are_known_as_soon_as_they_are_in_their_files(
    installation: Installation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new, clients, users = f"new-{uuid.uuid4().hex[:8]}", tmp_path / "clients.toml", tmp_path / "users.toml"
    clients.write_text("[old]\n")
    users.write_text("")
    more = {"clients_file": clients, "users_file": users, "proxy_secret": SecretStr("s" * 32)}
    settings = installation.system.settings.model_copy(update=more)
    system = following_files(replace(installation.system, settings=settings))
    token = page_token(system, new)
    proxied = OWN | {"Orders-User": "a@x.example", "Orders-Proxy-Secret": "s" * 32, "Accept": "text/html"}
    with served(system) as url:
        answer = Browser(url).sign_in(token)
        assert (answer.status_code, "its client is not set up here" in answer.text) == (403, True)
        assert requests.get(f"{url}/history", headers=proxied, timeout=60).status_code == 403
        clients.write_text(f'[{new}]\nname = "新"\n')
        users.write_text(f'["a@x.example"]\nclient = "{new}"\nrole = "reader"\n')
        clerk = Browser(url)
        assert (clerk.sign_in(token).status_code, new in clerk.get("/history").text) == (303, True)
        assert requests.get(f"{url}/history", headers=proxied, timeout=60).status_code == 200
        known = installation.rows("SELECT client_code FROM known_profiles")
        assert known == [(new,)]  # before it is gone by, the audit has it
        for broken in ("[", "[a]\nno_setting = 1\n"):
            clients.write_text(broken)
            assert clerk.get("/v1/profile").status_code == 200
        clients.unlink()
        assert clerk.get("/v1/profile").status_code == 200
        refused = [each.getMessage() for each in caplog.records if each.name == "orders_pipeline.system"]
        assert len(refused) == 3
        assert all("E_CLIENTS_FILE" in each and "stays in force" in each for each in refused)
        clients.write_text("[old]\n")
        assert "/sign-in" in clerk.get("/history").url
    installation.rows("DELETE FROM known_profiles")


def test_a_session_ends_with_its_token_by_signing_out_and_when_it_is_old(
    installation: Installation, url: str, client_code: str
) -> None:
    def is_in(browser: Browser) -> bool:
        return "/sign-in" not in browser.get("/history").url

    token = page_token(installation.system, client_code)
    first, second, third, fourth = (Browser(url) for _ in range(4))
    for browser in (first, second, third, fourth):
        assert browser.sign_in(token).status_code == 303
    assert first.post("/sign-out").headers["Location"] == "/sign-in"
    assert [is_in(browser) for browser in (first, second)] == [False, True]
    installation.rows(
        "UPDATE api_sessions SET last_used_at = now() - interval '9 hours' WHERE session_sha256 = sha256(%s)",
        second.cookies["orders"].encode(),
    )
    assert not is_in(second)
    installation.rows(
        "UPDATE api_sessions SET created_at = now() - interval '25 hours' WHERE session_sha256 = sha256(%s)",
        third.cookies["orders"].encode(),
    )
    assert not is_in(third)
    assert is_in(fourth)
    api_tokens.revoke(installation.system.database, token[4:12])
    assert not is_in(fourth)


def test_what_an_open_page_asks_for_by_itself_makes_no_session_last_longer(
    installation: Installation, url: str, client_code: str
) -> None:
    browser = signed_in(installation.system, url, client_code)
    session = browser.cookies["orders"].encode()

    def lasts_longer(mode: str) -> bool:
        hours_ago = "UPDATE api_sessions SET last_used_at = now() - interval '7 hours' WHERE session_sha256 = sha256(%s)"
        installation.rows(hours_ago, session)
        assert browser._session.get(f"{url}/history", headers={"Sec-Fetch-Mode": mode}).status_code == 200
        last = "SELECT last_used_at > now() - interval '1 hour' FROM api_sessions WHERE session_sha256 = sha256(%s)"
        return bool(installation.rows(last, session)[0][0])

    assert [lasts_longer(mode) for mode in ("cors", "navigate")] == [False, True]


def test_a_page_of_somebody_else_can_do_nothing_in_the_name_of_who_is_signed_in(
    installation: Installation, clerk: Browser
) -> None:
    batch_id = send(clerk, csv_of(*order_rows(2)))
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {},
    ):
        for path in (
            f"/v1/batches/{batch_id}/cancel",
            "/v1/batches",
            "/check",
            f"/b/{batch_id}/edits",
            "/sign-out",
            "/sign-in",
        ):
            answer = clerk.post(path, headers, data=b"x")
            assert problem_or_page(answer) == 403, (path, headers)
    assert clerk.post(f"/v1/batches/{batch_id}/cancel", {"Origin": clerk.url}).status_code == 202
    assert clerk.get("/history").status_code == 200


def problem_or_page(answer: requests.Response) -> int:
    assert "Access-Control-Allow-Origin" not in answer.headers
    return answer.status_code


def test_every_answer_to_a_browser_is_held_to_our_own_scripts_and_kept_by_nobody(url: str, clerk: Browser) -> None:
    batch_id = send(clerk, csv_of(*order_rows(1)))
    for path in ("/send", "/history", f"/b/{batch_id}", f"/b/{batch_id}/fix", "/b/20200101-000000000000", "/sign-in"):
        answer = clerk.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<script>" not in answer.text
        assert " style=" not in answer.text
        assert not re.search(r"\son[a-z]+=", answer.text)
    static = re.search(r'href="(/static/[^"]+\.css)"', clerk.get("/send").text)
    assert static is not None
    assert "immutable" in clerk.get(static[1]).headers["Cache-Control"]
    assert clerk.get("/static/other/page.css").status_code == 404


def test_scripts_put_nothing_into_the_page_that_would_be_run() -> None:
    for name, content in STATIC.items():
        if name.endswith(".js"):
            assert not re.search(
                rb"innerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|new Function", content
            ), name


def test_users_of_the_companys_own_login_are_believed_from_our_proxy_alone(
    installation: Installation, client_code: str, tmp_path: Path
) -> None:
    path, secret = tmp_path / "users.toml", "s" * 32
    path.write_text(f'["clerk@x.example"]\nclient = "{client_code}"\nrole = "clerk"\n["op@x.example"]\nrole = "operator"\n')
    settings = installation.system.settings.model_copy(update={"users_file": path, "proxy_secret": SecretStr(secret)})
    with served(replace(installation.system, settings=settings, users=read_users(path))) as url:

        def asked(user: str, given: str = secret, *, method: str = "GET", path: str = "/history", **more: str) -> int:
            headers = {"Accept": "text/html", "Orders-User": user, "Orders-Proxy-Secret": given, **more}
            return requests.request(method, f"{url}{path}", headers=headers, timeout=60, allow_redirects=False).status_code

        assert asked("clerk@x.example") == 200
        assert [asked("clerk@x.example", path="/overview"), asked("op@x.example", path="/overview")] == [403, 200]
        for user, given in (
            ("nobody@x.example", secret),
            ("clerk@x.example", "s" * 31),
            ("clerk@x.example", ""),
            ("", secret),
        ):
            assert asked(user, given) == 403, (user, given)
        assert asked("clerk@x.example", method="POST", path="/check", **{"Sec-Fetch-Site": "cross-site"}) == 403
        assert asked("clerk@x.example", method="POST", path="/check", **{"Sec-Fetch-Site": "same-origin"}) == 415
        page = requests.get(
            f"{url}/send", headers={"Orders-User": "clerk@x.example", "Orders-Proxy-Secret": secret}, timeout=60
        ).text
        assert "clerk@x.example" in page
        assert 'action="/sign-out"' not in page
    with served(installation.system) as url:
        assert asked("clerk@x.example") == 403


def test_the_cookie_is_for_our_own_server_alone(installation: Installation, url: str, client_code: str) -> None:
    header = Browser(url).sign_in(page_token(installation.system, client_code)).headers["Set-Cookie"]
    assert "HttpOnly" in header
    assert "SameSite=lax" in header
    assert "Domain" not in header


def test_a_person_sees_their_own_clients_files_and_no_others(installation: Installation, url: str, clerk: Browser) -> None:
    other = signed_in(installation.system, url, "other")
    batch_id = send(clerk, csv_of(*order_rows(2)), "mine.csv")
    assert "mine.csv" in clerk.get("/history").text
    assert "mine.csv" not in other.get("/history").text
    missing = "20200101-000000000000"
    for path in ("/b/{}", "/b/{}/fix", "/v1/batches/{}", "/v1/batches/{}/events", "/v1/batches/{}/files/original"):
        answers = [other.get(path.format(each)) for each in (batch_id, missing)]
        assert {answer.status_code for answer in answers} == {404}
        assert path.startswith("/v1/") or 'href="/history"' in answers[0].text  # what there is to see stays in reach
        first, second = (
            re.sub(r"[0-9a-f]{16}", "", answer.text).replace(each, "")
            for answer, each in zip(answers, (batch_id, missing), strict=True)
        )
        assert first == second
    assert other.get("/overview").status_code == 403
    assert corrected(other, batch_id, (1, 0, "x", "y")).status_code == 404


def test_an_operator_sees_all_clients_and_says_for_whom_a_file_is_sent(
    installation: Installation, url: str, clerk: Browser, client_code: str
) -> None:
    own = send(clerk, csv_of(*order_rows(3)), "own.csv")
    operator = signed_in(installation.system, url, None)
    assert operator.get("/").url == f"{url}/overview"
    assert "own.csv" in operator.get("/overview").text
    assert client_code in operator.get("/history").text
    assert "own.csv" in operator.get(f"/b/{own}").text
    sent = send(operator, csv_of(*(order_row(client_order_ref=f"NEW-{at}") for at in range(2))), client=client_code)
    assert operator.get(f"/v1/batches/{sent}").json()["batch_id"] == sent
    assert "/b/" + sent in clerk.get("/history").text
    assert operator.post("/v1/batches", OWN | {"Idempotency-Key": "k"}, data=b"x").status_code == 400
    assert operator.get("/v1/profile", client="no such").status_code == 400
    assert [clerk.get("/v1/profile", client=each).status_code for each in (client_code, "other")] == [200, 400]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_file_is_checked_and_nothing_is_kept(
    installation: Installation, url: str, client_code: str, language: str
) -> None:
    browser = signed_in(installation.system, url, client_code, language=language)
    body = csv_of(*order_rows(4), order_row(client_order_ref="BAD-1", amount="x"))
    part = browser.post("/check", params={"name": "<b>orders.csv"}, data=body)
    assert part.status_code == 200
    assert ("4 of 5 orders can be taken" if language == "en" else "5件中4件を受け付けられます") in part.text
    button = "Send 4, ¥4,000; correct 1 later" if language == "en" else "4件・4,000円を送信し、1件は後で修正する"
    assert f'data-do="send">{button}</button>' in part.text
    assert "&lt;b&gt;orders.csv" in part.text
    assert installation.rows("SELECT count(*) FROM batches WHERE client_code = %s", client_code) == [(0,)]
    refused = browser.post("/check", params={"name": "orders.csv"}, data=b"a,b\r\n1,2\r\n")
    assert ("cannot be taken" if language == "en" else "受け付けられません") in refused.text
    assert 'data-do="send"' not in refused.text


def test_a_batch_is_shown_as_it_goes_on_and_rows_and_yen_add_up(installation: Installation, clerk: Browser) -> None:
    batch_id = send(clerk, csv_of(*order_rows(4), order_row(client_order_ref="BAD", amount="x")), "<i>注文.csv")
    page = clerk.get(f"/b/{batch_id}").text
    assert "&lt;i&gt;注文.csv" in page
    assert f'data-events="/v1/batches/{batch_id}/events"' in page
    assert 'data-post="cancel"' in page
    installation.work_off(batch_id)
    page = clerk.get(f"/b/{batch_id}").text
    assert 'data-events=""' in page
    assert 'class="state state-completed_with_errors"' in page
    assert re.findall(r'<td class="number">(4|¥4,000)</td>', page) == ["4", "¥4,000"] * 2
    assert f'href="/b/{batch_id}/fix"' in page
    assert f'href="/v1/batches/{batch_id}/files/errors.csv"' in page


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_file_and_the_history_say_what_was_refunded_and_what_is_being(
    installation: Installation, url: str, client_code: str, language: str
) -> None:
    clerk = signed_in(installation.system, url, client_code, language=language)
    rows = order_rows(3)
    batch_id = send(clerk, csv_of(*rows))
    send(clerk, csv_of(*(order_row(client_order_ref=f"OTHER-{at}") for at in range(2))))
    installation.work_off(batch_id)
    of_file = {
        "en": ["Refunded since then: 1 order, ¥1,000.", "Being refunded: 2 orders, ¥2,000."],
        "ja": ["その後、1件・1,000円を返金しました。", "2件・2,000円の返金を処理しています。"],
    }[language]
    of_list = {
        "en": ["Refunded: 1, ¥1,000", "Being refunded: 2, ¥2,000"],
        "ja": ["返金済み 1件・1,000円", "返金処理中 2件・2,000円"],
    }[language]

    def said() -> list[int]:
        page, *lists = (clerk.get(path).text for path in (f"/b/{batch_id}", "/history", "/send"))
        return [*(page.count(each) for each in of_file), *(text.count(each) for text in lists for each in of_list)]

    assert said() == [0] * 6
    plan = read_plan(installation.system.database, batch_id, [rows[0]["client_order_ref"]])
    refunding.carry_out(installation.system, plan, requested_by="operator", reason="returned")
    assert said() == [1, 0] * 3
    write_plan(
        installation.system.database,
        read_plan(installation.system.database, batch_id),
        requested_by="operator",
        reason="returned",
    )
    assert said() == [1] * 6


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_refund_that_waits_for_a_person_is_said_to_wait_and_not_to_be_made(
    installation: Installation, url: str, client_code: str, language: str
) -> None:
    clerk, operator = (signed_in(installation.system, url, each, language=language) for each in (client_code, None))
    batch_id = send(clerk, csv_of(*order_rows(2)))
    installation.work_off(batch_id)
    plan = read_plan(installation.system.database, batch_id)
    write_plan(installation.system.database, plan, requested_by="operator", reason="returned")
    made, waits, waits_in_list, to_decide = {
        "en": (
            "Being refunded",
            "decide on the refund of 2 orders, ¥2,000.",
            "Refund to be decided: 2, ¥2,000",
            "1 refund to be",
        ),
        "ja": (
            "の返金を処理しています",
            "2件・2,000円の返金は、管理者の判断を待っています。",
            "返金の判断待ち 2件・2,000円",
            "返金1回の判断",
        ),
    }[language]
    page = clerk.get(f"/b/{batch_id}").text
    assert (made in page, waits in page, batch_id in operator.get("/overview").text) == (True, False, False)
    installation.rows("UPDATE refunds SET next_attempt_at = 'infinity' WHERE batch_id = %s", batch_id)
    page = clerk.get(f"/b/{batch_id}").text
    assert (made in page, waits in page, "refund-waits" in page) == (False, True, True)
    assert waits_in_list in clerk.get("/history").text
    overview = operator.get("/overview").text
    waiting = overview[: overview.index('id="running"')]
    assert (f'href="/b/{batch_id}"' in waiting, to_decide in waiting) == (True, True)
    installation.rows("UPDATE refunds SET next_attempt_at = now() WHERE batch_id = %s", batch_id)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_who_may_refund_is_shown_what_it_comes_to_before_anything_is(
    installation: Installation, url: str, client_code: str, language: str
) -> None:
    clerk = signed_in(installation.system, url, client_code, language=language)
    refs = [f"R-{at}" for at in range(3)]
    batch_id = send(clerk, csv_of(*(order_row(client_order_ref=ref, amount="1500") for ref in refs)))
    desk = signed_in(installation.system, url, client_code, [READ, REFUND], language)
    place = f"/b/{batch_id}/refund"
    assert place not in desk.get(f"/b/{batch_id}").text  # nothing is paid yet
    installation.work_off(batch_id)
    assert place not in clerk.get(f"/b/{batch_id}").text
    assert clerk.get(place).status_code == 403
    assert signed_in(installation.system, url, "other", [READ, REFUND]).get(place).status_code == 404
    assert place in desk.get(f"/b/{batch_id}").text
    button = {"en": "Refund {n} orders, ¥{yen}<", "ja": "{n}件・{yen}円を返金する<"}[language]
    assert button.format(n=3, yen="4,500") in desk.get(place).text
    assert button.format(n=2, yen="3,000") in desk.get(place, orders="r-1、\nR-2,R-1").text
    unknown = desk.get(place, orders="R-1 <b> R-9").text
    assert 'id="refund"' not in unknown
    assert {"en": "not in this file: &lt;b&gt;<", "ja": "1件あります: &lt;b&gt;<"}[language] in unknown
    assert {"en": "not in this file: R-9<", "ja": "1件あります: R-9<"}[language] in desk.get(place, orders="R-1 R-9").text
    assert installation.rows("SELECT count(*) FROM refunds WHERE batch_id = %s", batch_id) == [(0,)]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_cancelled_file_says_who_cancelled_it_and_whom_nobody_notifies(
    installation: Installation, url: str, client_code: str, language: str
) -> None:
    clerk = signed_in(installation.system, url, client_code, language=language)
    batch_id = send(clerk, csv_of(*order_rows(3, notify_channel="email")))
    prepare(installation.system, batch_id)
    with settling(installation.system, batch_id, None) as settlement:
        assert settlement is not None
        settlement.pay()
    dialog = clerk.get(f"/b/{batch_id}").text.partition('<dialog id="cancel-dialog"')[2]
    said = {
        "en": ["Nobody is notified any more", "At least 3 orders, ¥3,000, stay paid", "At most 1 of 1 notifications"],
        "ja": ["未送信の通知は届きません", "少なくとも3件、3,000円は決済済み", "1件の通知のうち、最大で1件"],
    }
    assert [each for each in said[language] if each not in dialog] == []
    assert clerk.get(f"/b/{batch_id}/not-notified.csv").text.count("\n") == 1
    headers = OWN | {"Idempotency-Key": uuid.uuid4().hex}
    assert clerk.post(f"/v1/batches/{batch_id}/cancel", headers, json={"reason": "先月分です"}).status_code == 202
    cancelling.finish(installation.system, batch_id)
    page = clerk.get(f"/b/{batch_id}").text
    assert re.search(
        {"en": "Cancelled by a desk, .+ Reason: 先月分です<", "ja": "a deskが.+に中止しました。理由: 先月分です<"}[language],
        page,
    )
    assert {"en": "All orders were paid already.", "ja": "すべての注文の決済が完了した後に"}[language] in page
    assert {"en": "3 orders, ¥3,000, are paid and", "ja": "3件、3,000円の注文は決済済みですが"}[language] in page
    steps_shown = re.findall(r'<li class="step-(\w+)"', page)
    assert steps_shown == ["done", "done", "done", "done", "left_undone", "done"]
    (link,) = re.findall(r'href="(/b/[^"]+/not-notified.csv)"', page)
    answer = clerk.get(link)
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert rows[0] == [{"en": "Row", "ja": "行"}[language], "client_order_ref", "customer_code", "amount", "notify_channel"]
    assert [row[1] for row in rows[1:]] == [row["client_order_ref"] for row in order_rows(3)]
    assert f"{batch_id}-not-notified.csv" in answer.headers["Content-Disposition"]
    assert signed_in(installation.system, url, "other").get(link).status_code == 404


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_file_that_a_program_cancelled_without_a_reason_says_so(
    installation: Installation, url: str, client_code: str, language: str
) -> None:
    clerk = signed_in(installation.system, url, client_code, language=language)
    batch_id = send(clerk, csv_of(*order_rows(1)))
    assert clerk.post(f"/v1/batches/{batch_id}/cancel", OWN).json()["cancellation"]["reason"] == "no reason given"
    says = {"en": "Reason: none given<", "ja": "理由: 記載なし<"}[language]
    assert says in clerk.get(f"/b/{batch_id}").text


def test_a_list_that_is_downloaded_has_no_cell_that_a_spreadsheet_calculates(
    installation: Installation, clerk: Browser
) -> None:
    batch_id = send(clerk, csv_of(order_row(client_order_ref="-1-1", notify_channel="email")))
    prepare(installation.system, batch_id)
    with settling(installation.system, batch_id, None) as settlement:
        assert settlement is not None
        settlement.pay()
    headers = OWN | {"Idempotency-Key": uuid.uuid4().hex}
    assert clerk.post(f"/v1/batches/{batch_id}/cancel", headers, json={"reason": "a test"}).status_code == 202
    cancelling.finish(installation.system, batch_id)
    assert "1,'-1-1," in clerk.get(f"/b/{batch_id}/not-notified.csv").content.decode("utf-8-sig")


@pytest.mark.parametrize(("paid", "cancelled", "step"), [(0, 2, "left_undone"), (1, 1, "done_in_part"), (2, 0, "done")])
def test_a_step_of_a_cancelled_file_says_how_much_of_it_was_done(paid: int, cancelled: int, step: str) -> None:
    phases = [{"name": name, "state": "done"} for name in ("receive", "check", "load", "pay", "notify", "report")]
    batch = {
        "status": "cancelled",
        "progress": {"phases": phases},
        "rows": {"total": 2},
        "payments": {"planned": 2},
        "approval": None,
        "orders": {"pending": 0, "paying": 0, "unknown": 0, "paid": paid, "cancelled": cancelled},
        "notifications": {"planned": 2, "sent": paid, "failed": 0},
    }
    assert [how for _, how in views._steps(batch)] == ["done", "done", "done", step, step, "done"]


def test_who_may_only_read_is_offered_nothing_else(
    installation: Installation, url: str, clerk: Browser, client_code: str
) -> None:
    batch_id = with_bad_rows(installation, clerk, {"amount": "x"})
    unfinished = send(clerk, csv_of(*order_rows(1, client_order_ref="NEW-1")))
    reader = signed_in(installation.system, url, client_code, [READ])
    page, other = reader.get(f"/b/{batch_id}").text, reader.get(f"/b/{unfinished}").text
    assert "/fix" not in page
    assert 'id="ask-cancel"' not in other
    assert 'id="drop"' not in reader.get("/send").text
    assert reader.get(f"/b/{batch_id}/fix").status_code == 403
    assert corrected(reader, batch_id, (5, AMOUNT, "x", "1000")).status_code == 403
    writer = signed_in(installation.system, url, client_code, [READ, WRITE, CONTROL])
    assert corrected(writer, batch_id, (5, AMOUNT, "x", "1000")).status_code == 403
    assert PAGE not in (READ_REJECTED, WRITE)


def test_only_what_is_wrong_is_shown_to_be_changed_and_reading_it_is_in_the_audit(
    installation: Installation, clerk: Browser, client_code: str
) -> None:
    name = "株式会社ひみつ"
    batch_id = with_bad_rows(
        installation, clerk, {"amount": "12,00", "customer_name": name}, {"customer_name": f"{name} {CARD}"}
    )
    page = clerk.get(f"/b/{batch_id}/fix").text
    assert "12,00" in cells_of(page).values()
    assert name not in page
    assert CARD not in page
    shown = clerk.get(f"/b/{batch_id}/fix", columns="all", personal="show").text
    assert name in shown
    assert CARD not in shown
    read = installation.rows(
        "SELECT actor, rows FROM audit_events WHERE category = 'phi_access' AND batch_id = %s AND entity = 'rejected rows'",
        batch_id,
    )
    assert [rows for _, rows in read] == [2, 2]
    assert {actor.partition("/")[0] for actor, _ in read} == {client_code}


def test_all_cells_that_a_rule_is_about_may_be_changed(installation: Installation, clerk: Browser) -> None:
    wrong = {"item_code": "SKU-1", "quantity": "3", "unit_price": "100", "amount": "299"}
    batch_id = with_bad_rows(installation, clerk, wrong)
    page = clerk.get(f"/b/{batch_id}/fix").text
    columns = [list(order_row()).index(name) for name in ("quantity", "unit_price", "amount")]
    assert cells_of(page) == {(5, at): wrong[list(wrong)[place]] for place, at in enumerate(columns, 1)}
    assert page.count('aria-invalid="true"') == 1
    changes = (5, columns[0], "3", "13"), (5, columns[1], "100", "23")
    assert corrected(clerk, batch_id, *changes, dry=True).json()["good"] == 1


def test_rows_are_corrected_cell_by_cell_and_sent_as_a_correction(installation: Installation, clerk: Browser) -> None:
    batch_id = with_bad_rows(installation, clerk, {"amount": "12,00"}, {"email": "nobody"}, {"amount": "-"})
    cells = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    assert sorted(cells.values()) == ["-", "12,00", "nobody"]
    (first, second, third) = sorted(cells)
    changes = [(*first, "12,00", "1200"), (*second, "nobody", "somebody@example.com"), (*third, "-", "no number")]
    found = corrected(clerk, batch_id, *changes, dry=True).json()
    assert (found["good"], found["refusal"]) == (2, None)
    assert [bool(found["rows"][str(row)]) for row, _ in (first, second, third)] == [False, False, True]
    assert found["rows"][str(third[0])][0]["cell"] == third[1]
    assert installation.rows("SELECT count(*) FROM batches WHERE bulk_import_group = %s", batch_id) == [(1,)]
    answer = corrected(clerk, batch_id, *changes[:2])
    assert answer.status_code == 202, answer.text
    correction = answer.json()["batch_id"]
    assert "still wait for a correction" not in clerk.get(f"/b/{batch_id}").text
    for says in ("A correction is being processed.", "The correction of 2 rows is being processed."):
        for page in (clerk.get(f"/b/{each}").text for each in (batch_id, correction)):
            assert says in page
            assert f"/b/{batch_id}/fix" not in page
        steps.stage_batch(installation.system, correction)
    installation.work_off(correction)
    assert "is being processed" not in clerk.get(f"/b/{batch_id}").text
    batch = clerk.get(f"/v1/batches/{correction}").json()
    assert (batch["name"], batch["corrects"], batch["status"]) == ("orders.correction-1.csv", batch_id, "completed")
    assert batch["corrections"]["rows_open"] == 1
    assert "are still to be corrected" in clerk.get(f"/b/{correction}").text
    assert "All orders are paid" not in clerk.get(f"/b/{correction}").text
    assert list(cells_of(clerk.get(f"/b/{batch_id}/fix").text)) == [third]
    assert "1 of its 3 rows still wait for a correction." in clerk.get(f"/b/{batch_id}").text
    assert f"/b/{batch_id}/fix" in clerk.get(f"/b/{correction}").text
    assert problem(corrected(clerk, batch_id, changes[0]), 409) == "already-corrected"
    check_books(installation, batch_id)
    check_books(installation, correction)


REFERENCE = list(order_row()).index("client_order_ref")


@pytest.fixture
def conflict(installation: Installation, clerk: Browser) -> str:
    """A batch of a good row, rows 2 and 3 that are different orders of one reference, and row 4 that is wrong by itself."""
    wrong = [
        order_row(client_order_ref="A-6", amount="1500"),
        order_row(client_order_ref="A-6", amount="1800"),
        order_row(client_order_ref="A-7", amount="x"),
    ]
    batch_id = send(clerk, csv_of(order_row(), *wrong))
    installation.work_off(batch_id)
    return batch_id


def test_a_row_that_another_one_kept_back_is_sent_as_it_is_together_with_that(
    installation: Installation, clerk: Browser, conflict: str
) -> None:
    nothing_changed = corrected(clerk, conflict, dry=True).json()
    assert (nothing_changed["rows"], nothing_changed["good"]) == ({}, 0)
    change = 3, REFERENCE, "A-6", "A-8"
    found = corrected(clerk, conflict, change, dry=True).json()
    assert (found["rows"], found["good"]) == ({"2": [], "3": []}, 2)
    assert "1 of 1 changed row" in found["says"]
    assert "1 row can be taken unchanged. What is sent is ¥3,300, in 1 payment." in found["says"]
    assert found["send"] == "Send 2 rows, ¥3,300"
    correction = corrected(clerk, conflict, change, unchanged=[2]).json()["batch_id"]
    installation.work_off(correction)
    paid = installation.rows(
        "SELECT client_order_ref, amount, status FROM orders WHERE batch_id = %s ORDER BY 1", correction
    )
    assert paid == [("A-6", 1500, "paid"), ("A-8", 1800, "paid")]
    assert clerk.get(f"/v1/batches/{conflict}").json()["corrections"]["rows_open"] == 1
    check_books(installation, correction)


def test_a_row_that_another_one_kept_back_is_sent_as_it_is_after_that(
    installation: Installation, clerk: Browser, conflict: str
) -> None:
    installation.work_off(corrected(clerk, conflict, (3, REFERENCE, "A-6", "A-8")).json()["batch_id"])
    found = corrected(clerk, conflict, dry=True).json()
    assert (found["rows"], found["good"]) == ({"2": []}, 1)
    correction = corrected(clerk, conflict, unchanged=[2]).json()["batch_id"]
    installation.work_off(correction)
    assert clerk.get(f"/v1/batches/{correction}").json()["amount_jpy"]["paid"] == 1500


def test_of_rows_that_keep_each_other_back_a_person_says_which_is_right_as_it_is(
    installation: Installation, clerk: Browser, conflict: str
) -> None:
    page = clerk.get(f"/b/{conflict}/fix").text
    assert [row for row, line in re.findall(r'<tr data-row="(\d)">(.*?)</tr>', page, re.DOTALL) if "keep" in line] == [
        "2",
        "3",
    ]
    found = corrected(clerk, conflict, unchanged=[3], dry=True).json()
    assert (found["rows"], found["good"]) == ({"3": []}, 1)
    assert found["says"] == "1 row can be taken unchanged. What is sent is ¥1,800, in 1 payment."
    assert corrected(clerk, conflict, unchanged=[2, 3], dry=True).json()["good"] == 0
    correction = corrected(clerk, conflict, unchanged=[3]).json()["batch_id"]
    installation.work_off(correction)
    assert clerk.get(f"/v1/batches/{correction}").json()["amount_jpy"]["paid"] == 1800
    (errors,) = corrected(clerk, conflict, unchanged=[2], dry=True).json()["rows"].values()
    assert [each["kind"] for each in errors] == ["client_order_ref:R_REF_EXISTS_DIFFERS"]


def test_rows_that_nobody_changed_keep_none_back_that_was_changed(
    installation: Installation, clerk: Browser, conflict: str
) -> None:
    found = corrected(clerk, conflict, (2, AMOUNT, "1500", "1600"), dry=True).json()
    assert (found["rows"], found["good"]) == ({"2": []}, 1)
    kept = corrected(clerk, conflict, (2, AMOUNT, "1500", "1600"), (3, AMOUNT, "1800", "1700"), dry=True).json()
    assert kept["good"] == 0
    assert {each["kind"] for errors in kept["rows"].values() for each in errors} == {"client_order_ref:R_REF_CONFLICT"}


def test_a_row_whose_correction_is_wrong_too_is_corrected_where_it_is_now(
    installation: Installation, clerk: Browser
) -> None:
    batch_id = with_bad_rows(installation, clerk, {"amount": "12,00"})
    ((row, cell),) = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    second = corrected(clerk, batch_id, (row, cell, "12,00", "1,2")).json()["batch_id"]
    installation.work_off(second)
    assert "There is no row" in clerk.get(f"/b/{batch_id}/fix").text
    assert f"/b/{second}/fix" in clerk.get(f"/b/{batch_id}").text
    assert cells_of(clerk.get(f"/b/{second}/fix").text) == {(1, cell): "1,2"}
    third = corrected(clerk, second, (1, cell, "1,2", "12")).json()["batch_id"]
    installation.work_off(third)
    batch = clerk.get(f"/v1/batches/{third}").json()
    assert (batch["status"], batch["corrections"]["rows_open"], batch["name"]) == (
        "completed",
        0,
        "orders.correction-1.correction-2.csv",
    )


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ((5, AMOUNT, "another", "1200"), 409, "cell-changed"),
        ((5, 9_999, "12,00", "1200"), 409, "cell-changed"),
        ((1, AMOUNT, "1000", "1200"), 409, "already-corrected"),
        ((5, AMOUNT, "12,00", "a\nb"), 400, "malformed-request"),
        ((0, AMOUNT, "12,00", "1200"), 400, "malformed-request"),
        ((5, -1, "12,00", "1200"), 400, "malformed-request"),
    ],
)
def test_what_is_not_as_it_was_shown_is_not_changed(
    installation: Installation, clerk: Browser, change: tuple[int, int, str, str], status: int, slug: str
) -> None:
    batch_id = with_bad_rows(installation, clerk, {"amount": "12,00"})
    assert problem(corrected(clerk, batch_id, change, dry=True), status) == slug


def test_edits_that_are_none_are_refused(installation: Installation, clerk: Browser) -> None:
    batch_id = with_bad_rows(installation, clerk, {"amount": "12,00"})
    for body in (b"", b"{}", b"[]", b'{"edits":[{"row":5}]}', b'{"edits":1}', b"\xff", b"[" * 100_000):
        answer = clerk.post(f"/b/{batch_id}/edits", OWN | {"Idempotency-Key": "k"}, params={"dry_run": "true"}, data=body)
        assert problem(answer, 400) == "malformed-request"
    assert problem(corrected(clerk, batch_id), 400) == "malformed-request"
    assert problem(corrected(clerk, batch_id, unchanged=[1]), 409) == "already-corrected"
    answer = clerk.post(f"/b/{batch_id}/edits", OWN, data=b" " * (taking.MOST_EDITS_BYTES + 1))
    assert answer.status_code == 413
    cell = next(iter(cells_of(clerk.get(f"/b/{batch_id}/fix").text)))
    without_key = clerk.post(f"/b/{batch_id}/edits", OWN, json=edits((*cell, "12,00", "1200")))
    assert problem(without_key, 400) == "idempotency-key-missing"


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
def test_a_correction_is_written_as_its_client_writes(installation: Installation, clerk: Browser, codec: str) -> None:
    rows = [
        *order_rows(2, customer_name="見本, 商店"),
        order_row(client_order_ref="BAD", customer_name='見本"商店"', amount="x"),
    ]
    batch_id = send(clerk, csv_of(*rows).decode().encode(codec))
    installation.work_off(batch_id)
    (place,) = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    if codec == "cp932":
        name_cell = list(rows[0]).index("customer_name")
        assert (
            problem(corrected(clerk, batch_id, (*place, "x", "1"), (place[0], name_cell, None, "😀"), dry=True), 422)
            == "not-encodable"
        )
    answer = corrected(clerk, batch_id, (*place, "x", "1234"))
    correction = answer.json()["batch_id"]
    prepare(installation.system, correction)
    installation.work_off(correction)
    assert clerk.get(f"/v1/batches/{correction}").json()["status"] == "completed"
    original = clerk.get(f"/v1/batches/{correction}/files/original").content
    text = original.decode(codec if codec != "utf-16" else "utf-16").removeprefix("\ufeff")
    header, record = csv.reader(io.StringIO(text, newline=""))
    assert header[-4:] == ["_batch", "_row", "_line", "_codes"]
    assert record[-4:-2] == [batch_id, "3"]
    assert dict(zip(header, record, strict=True)) | {"amount": "x"} == rows[2] | dict(
        zip(header[-4:], record[-4:], strict=True)
    )


def test_rows_of_a_workbook_are_corrected_too(installation: Installation, clerk: Browser) -> None:
    rows = [*order_rows(2), order_row(client_order_ref="BAD", amount="many")]
    workbook, content = openpyxl.Workbook(), io.BytesIO()
    for cells in ([*rows[0]], *([*row.values()] for row in rows)):
        workbook.active.append(cells)
    workbook.save(content)
    batch_id = send(clerk, content.getvalue(), "注文.xlsx")
    installation.work_off(batch_id)
    (place,) = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    correction = corrected(clerk, batch_id, (*place, "many", "500")).json()["batch_id"]
    installation.work_off(correction)
    batch = clerk.get(f"/v1/batches/{correction}").json()
    assert (batch["status"], batch["name"]) == ("completed", "注文.correction-1.csv")


def test_rows_of_the_wrong_shape_are_for_the_file_and_the_others_are_changed(
    installation: Installation, clerk: Browser
) -> None:
    rows = [*order_rows(2), order_row(client_order_ref="BAD", amount="x")]
    batch_id = send(clerk, csv_of(*rows) + b"too,few\r\n")
    installation.work_off(batch_id)
    page = clerk.get(f"/b/{batch_id}/fix").text
    assert list(cells_of(page)) == [(3, list(rows[0]).index("amount"))]
    assert "Correct this row in the file" in page
    assert problem(corrected(clerk, batch_id, (4, 0, "too", "1"), dry=True), 409) == "cell-changed"


def test_rows_are_shown_a_page_at_a_time_and_values_that_many_share_are_offered_once(
    installation: Installation, clerk: Browser
) -> None:
    rows = order_rows(fixing.ROWS_A_PAGE + 5, amount="abc")
    batch_id = send(clerk, csv_of(*rows, order_row(client_order_ref="GOOD")))
    installation.work_off(batch_id)
    first, second = (clerk.get(f"/b/{batch_id}/fix", page=page).text for page in ("1", "2"))
    assert (len(cells_of(first)), len(cells_of(second))) == (fixing.ROWS_A_PAGE, 5)
    assert clerk.get(f"/b/{batch_id}/fix", page="99").text.count("data-row=") == 5
    for wrong in ("x", "0", "-1", "9" * 5000):
        assert clerk.get(f"/b/{batch_id}/fix", page=wrong).status_code == 400
    assert clerk.get("/history", before="0001-01-01T00:00:00+23:59", id=batch_id).status_code == 400
    shared = re.findall(r'data-old="([^"]*)" data-rows="([^"]*)"', first)
    assert [(old, len(rows.split())) for old, rows in shared] == [("abc", len(rows))]


PROFILES = {
    "approved": Profile(approval="always"),
    "strict": Profile(refuse_above_percent=45),
    "twice": Profile.model_validate(
        {"columns": {"amount": {"header": "合計", "occurrence": 2}, "phone": {"header": "TEL", "occurrence": 2}}}
    ),
    "legacy": Profile.model_validate({"encoding": "cp932", "delimiter": "\t"}),
    "grouping": Profile.model_validate(
        {
            "lines": "grouped",
            "columns": {"amount": {"header": "amount", "each": "line"}},
            "skip": [{"header": "Status", "values": ["cancelled"]}],
            "reject": [{"header": "Refunded", "except": ["0"]}],
        }
    ),
    "choosing": Profile.model_validate(
        {"skip": [{"header": "Status", "values": ["cancelled"]}], "reject": [{"header": "Refunded", "except": ["0"]}]}
    ),
}


@pytest.fixture
def profiled(installation: Installation) -> Iterator[tuple[Installation, str]]:
    """An installation whose clients have profiles, and where it is served."""
    system = replace(installation.system, clients=Clients(PROFILES))
    with served(system) as url:
        yield Installation(system, installation.sandbox, installation.instance), url


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_what_waits_is_approved_after_a_question_or_refused_for_a_reason_that_its_sender_reads(
    profiled: tuple[Installation, str], decision: str
) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "approved", language="ja")
    approver = signed_in(installation.system, url, "approved", [READ, APPROVE], language="ja")
    batch_id = send(clerk, csv_of(*(order_row(client_order_ref=f"{decision}-{at}") for at in range(3))))
    installation.work_off(batch_id)
    page = approver.get(f"/b/{batch_id}").text
    assert 'data-ask="approve-dialog"' in page
    assert page.count('data-post="approve"') == 1
    assert "3件、合計3,000円の注文の決済を始めます。" in page.partition('<dialog id="approve-dialog"')[2]
    page = clerk.get(f"/b/{batch_id}").text
    assert 'data-ask="approve-dialog"' not in page
    assert '<th scope="row">承認待ち</th>' in page
    assert 'errors.csv" download' not in page
    assert "承認権限がありません。送信者以外の" in page
    headers = OWN | {"Idempotency-Key": uuid.uuid4().hex}
    body = {"json": {"reason": "先月分です"}} if decision == "refuse" else {}
    assert approver.post(f"/v1/batches/{batch_id}/{decision}", headers, **body).status_code == 202
    page = clerk.get(f"/b/{batch_id}").text
    said = {
        "approve": r"a deskが\d+月\d+日 \d\d:\d\dに承認しました。<",
        "refuse": r"a deskが.+に却下しました。理由: 先月分です<",
    }
    assert re.search(said[decision], page)
    assert ("決済は1件も行っていません" in page) == (decision == "refuse")
    assert '<li class="step-done"><span class="step-name">登録' in page


def test_a_file_that_may_have_few_bad_rows_is_corrected_row_by_row(profiled: tuple[Installation, str]) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "strict")
    reference = uuid.uuid4().hex[:8]
    wrong = [order_row(client_order_ref=f"{reference}-BAD-{at}", amount="x") for at in range(3)]
    good = [order_row(client_order_ref=f"{reference}-{at}") for at in range(4)]
    batch_id = send(clerk, csv_of(*good, *wrong))
    installation.work_off(batch_id)
    found = corrected(clerk, batch_id, (5, AMOUNT, "x", "1000"), dry=True).json()
    assert (found["rows"], found["refusal"]) == ({"5": []}, None)


def test_a_correction_that_will_wait_for_approval_says_so_before_it_is_sent(profiled: tuple[Installation, str]) -> None:
    installation, url = profiled
    for client_code in ("approved", "strict"):
        clerk = signed_in(installation.system, url, client_code)
        batch_id = send(clerk, csv_of(*order_rows(2), order_row(client_order_ref=uuid.uuid4().hex[:8], amount="x")))
        installation.work_off(batch_id)
        says = corrected(clerk, batch_id, (3, AMOUNT, "x", "1000"), dry=True).json()["says"]
        assert ("before somebody else has approved" in says) == (client_code == "approved")


def test_a_row_that_would_be_skipped_is_said_not_to_be_charged_and_waits_no_more(profiled: tuple[Installation, str]) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "choosing")
    reference = uuid.uuid4().hex[:8]
    chosen = [{"Status": "paid", "refunded ": refunded} for refunded in ("300", "200", "0")]
    batch_id = send(clerk, csv_of(*(order_row(client_order_ref=f"{reference}-{at}") | chosen[at] for at in range(3))))
    installation.work_off(batch_id)
    status, refunded = len(order_row()), len(order_row()) + 1
    cells = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    assert {place: text for place, text in cells.items() if place[1] == refunded} == {
        (1, refunded): "300",
        (2, refunded): "200",
    }
    cancelled, due = (1, status, "paid", "cancelled"), (2, refunded, "200", "")
    for edits_, taken in (((cancelled, due), 1), ((cancelled,), 0)):
        found = corrected(clerk, batch_id, *edits_, dry=True).json()
        assert (found["closed"], found["good"], found["refusal"]) == ([1], taken + 1, None)
        assert found["rows"] == {"1": []} | ({"2": []} if taken else {})
        assert f"{taken} of {len(edits_)} changed rows can be taken. 1 row will not be charged." in found["says"]
    correction = corrected(clerk, batch_id, cancelled).json()["batch_id"]
    installation.work_off(correction)
    batch = clerk.get(f"/v1/batches/{correction}").json()
    assert (batch["status"], batch["rows"]["skipped"], batch["orders"]["paid"]) == ("completed", 1, 0)
    assert "This file has no order to pay: its rows were left out." in clerk.get(f"/b/{correction}").text
    assert clerk.get(f"/v1/batches/{batch_id}").json()["corrections"]["rows_open"] == 1
    assert {row for row, _ in cells_of(clerk.get(f"/b/{batch_id}/fix").text)} == {2}


def test_a_file_of_which_nothing_was_taken_says_when_none_of_its_rows_waits_any_more(
    profiled: tuple[Installation, str],
) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "choosing")
    batch_id = send(clerk, csv_of(order_row(client_order_ref=uuid.uuid4().hex) | {"Status": "paid", "refunded ": "300"}))
    installation.work_off(batch_id)
    assert "No order of this file was taken." in clerk.get(f"/b/{batch_id}").text
    correction = corrected(clerk, batch_id, (1, len(order_row()), "paid", "cancelled")).json()["batch_id"]
    installation.work_off(correction)
    assert "None of its rows waits for a correction any more." in clerk.get(f"/b/{batch_id}").text
    assert '<p class="hint">Rows were skipped' in clerk.get(f"/b/{correction}").text  # nothing is wrong with that


def test_rows_below_that_go_with_a_skipped_one_are_closed_with_it_and_no_other_row_is(
    profiled: tuple[Installation, str],
) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "grouping")
    reference = uuid.uuid4().hex[:8]
    of_rows = (("1", "paid", "300"), ("1", "", ""), ("2", "paid", "200"), ("2", "paid", ""))
    lines = [
        order_row(client_order_ref=f"{reference}-{ref}") | {"Status": status, "Refunded": due}
        for ref, status, due in of_rows
    ]
    batch_id = send(clerk, csv_of(*lines))
    installation.work_off(batch_id)
    status = len(order_row())
    found = corrected(clerk, batch_id, (1, status, "paid", "cancelled"), dry=True).json()
    assert (found["closed"], found["good"], found["rows"]) == ([1, 2], 2, {"1": [], "2": []})
    assert found["says"].startswith("0 of 1 changed rows can be taken. 2 rows will not be charged. What is sent")
    found = corrected(clerk, batch_id, (3, status, "paid", "cancelled"), dry=True).json()
    assert (found["closed"], found["good"]) == ([], 0)
    assert [[each["kind"] for each in found["rows"][row]] for row in "34"] == [[":W_ROWS_SKIPPED"], [":R_ORDER_INCOMPLETE"]]


def test_of_a_header_that_comes_twice_the_cell_that_is_meant_is_shown_and_changed(
    profiled: tuple[Installation, str],
) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "twice")
    reference = uuid.uuid4().hex[:8]
    header = "注文番号,得意先コード,得意先名,合計,TEL,合計,支払方法,TEL"
    text = f"{header}\n{reference},C1,見本,777,03111,12x00,invoice,0901111222\n"
    batch_id = send(clerk, text.encode())
    installation.work_off(batch_id)
    page = clerk.get(f"/b/{batch_id}/fix", columns="all").text
    assert cells_of(page) == {(1, 5): "12x00"}
    assert "0901111222" not in page
    correction = corrected(clerk, batch_id, (1, 5, "12x00", "1200")).json()["batch_id"]
    installation.work_off(correction)
    assert clerk.get(f"/v1/batches/{correction}").json()["amount_jpy"]["accepted"] == 1200


@pytest.mark.parametrize("cell", ["a\rb", "a\r\nb", "a\nb"])
@pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
def test_cells_of_several_lines_are_typed_anew_and_break_no_correction(
    installation: Installation, clerk: Browser, cell: str, line_ending: str
) -> None:
    rows = [order_row(client_order_ref="A-1", customer_name=cell, amount="x"), order_row(client_order_ref="A-2")]
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    text = line_ending.join(",".join(f'"{each}"' for each in line) for line in lines) + line_ending
    batch_id = send(clerk, text.encode())
    installation.work_off(batch_id)
    cells = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    name = list(rows[0]).index("customer_name")
    anew = {AMOUNT: "100", name: "見本"}
    changes = [(row, at, None if at == name else value, anew[at]) for (row, at), value in cells.items()]
    found = corrected(clerk, batch_id, *changes, dry=True)
    assert (found.status_code, found.json()["refusal"]) == (200, None)
    assert corrected(clerk, batch_id, *changes).status_code == 202


def test_rows_of_a_workbook_are_sent_as_their_clients_text_files_are(profiled: tuple[Installation, str]) -> None:
    installation, url = profiled
    clerk = signed_in(installation.system, url, "legacy")
    row = order_row(client_order_ref=uuid.uuid4().hex[:8], amount="many")
    workbook, content = openpyxl.Workbook(), io.BytesIO()
    for cells in ([*row], [*row.values()]):
        workbook.active.append(cells)
    workbook.save(content)
    batch_id = send(clerk, content.getvalue(), "注文.xlsx")
    installation.work_off(batch_id)
    (place,) = cells_of(clerk.get(f"/b/{batch_id}/fix").text)
    assert corrected(clerk, batch_id, (*place, "many", "500"), dry=True).json()["good"] == 1
    correction = corrected(clerk, batch_id, (*place, "many", "500")).json()["batch_id"]
    installation.work_off(correction)
    assert clerk.get(f"/v1/batches/{correction}").json()["status"] == "completed"


def test_a_card_number_is_shown_nowhere_whatever_else_is_wrong_with_its_cell(
    installation: Installation, clerk: Browser
) -> None:
    wrong = [{name: CARD} for name in ("phone", "amount", "quantity", "order_date", "payment_method")]
    wrong += [{name: f"{CARD} {'長' * 600}"} for name in ("customer_name", "note")]
    batch_id = with_bad_rows(installation, clerk, *wrong, *wrong)
    page = clerk.get(f"/b/{batch_id}/fix", columns="all", personal="show").text
    assert page.count("data-row=") == 2 * len(wrong)
    assert CARD not in page


def test_what_was_checked_for_one_client_is_sent_for_no_other(installation: Installation, url: str, clerk: Browser) -> None:
    body = csv_of(*order_rows(1))
    part = clerk.post("/check", params={"name": "o.csv"}, data=body).text
    (checked_for,) = re.findall(r'data-client="([^"]+)"', part)
    other = signed_in(installation.system, url, "other")
    headers = OWN | {"Idempotency-Key": uuid.uuid4().hex}
    answer = other.post("/v1/batches", headers, params={"name": "o.csv", "client": checked_for}, data=body)
    assert problem(answer, 400) == "malformed-request"
    assert send(clerk, body, client=checked_for)

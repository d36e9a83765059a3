"""The words of the page: all there in both languages, each used, with numbers and times as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest

from orders_pipeline.batches import batches
from orders_pipeline.web.page import texts
from orders_pipeline.web.page.texts import TEXTS, Words

PAGE = Path(str(resources.files("orders_pipeline.web.page")))
STATES = batches.FINISHED | batches.UNDER_WAY | batches.HALTED | {"paused", batches.AWAITING_APPROVAL}


def parameters(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text)) - {"s"}


@pytest.mark.parametrize("key", sorted(TEXTS))
def test_a_text_says_the_same_in_both_languages(key):
    english, japanese = TEXTS[key]
    assert parameters(english) == parameters(japanese)
    assert english.isascii() or set(re.findall(r"[^\x00-\x7f]", english)) <= set("“”–…日本語")
    assert english != japanese


def test_every_text_is_used():
    sources = [each.read_text("utf-8") for each in [*PAGE.rglob("*.html"), *PAGE.glob("*.py")] if each.name != "texts.py"]
    named = {name for source in sources for name in re.findall(r"[\"'(]([\w.]+)[\"')]", source)}
    made = {f"{kind}_{state}" for state in STATES for kind in ("state", "says")} | {
        "service_payment",
        "service_notification",
        "was_approved",
        "of_pay",
        "of_notify",
        "was_refused",
        "says_cancelling_unpaid",
        "says_cancelled_unpaid",
        "says_rejected_corrected",
        "says_completed_none",
        "says_completed_rows_open",
        "state_still",
    }
    made |= {"receive", "check", "load", "pay", "notify", "report", "original", "rejected.csv", "errors.csv", "result.json"}
    assert set(TEXTS) - named - made - set(batches.PAUSES) == set()


def test_every_state_of_a_batch_has_words():
    folder = Path(str(resources.files("orders_pipeline.sql.migrations")))
    schema = "".join(path.read_text("utf-8") for path in folder.glob("*.sql"))
    known = re.findall(r"batches_status_known CHECK \(status IN \(([^)]+)\)", schema)
    assert set(re.findall(r"'(\w+)'", " ".join(known))) - {"failed"} == STATES
    assert {f"state_{state}" for state in STATES} <= set(TEXTS)
    assert {f"says_{state}" for state in STATES} <= set(TEXTS)
    assert {
        code for code in batches.PAUSES if code.split("_")[1] in ("PAYMENT", "NOTIFICATION", "LEDGERS", "REFUNDS")
    } <= set(TEXTS)


def test_numbers_yen_times_and_durations_are_written_as_people_do():
    english, japanese = Words("en"), Words("ja")
    assert (english.yen(1234567), japanese.yen(1234567)) == ("¥1,234,567", "1,234,567円")
    assert [english.duration(seconds) for seconds in (0.2, 59, 90, 3600, 5400)] == [
        "1 s",
        "59 s",
        "2 min",
        "1 h 0 min",
        "1 h 30 min",
    ]
    assert [japanese.duration(seconds) for seconds in (5, 600, 4000)] == ["5秒", "10分", "1時間7分"]
    assert english("rows_to_fix", n=1) == "1 row to correct"
    assert english("rows_to_fix", n=2345) == "2,345 rows to correct"
    at = datetime(2020, 1, 2, 20, 4, tzinfo=UTC)
    assert (english.moment(at), japanese.moment(at)) == ("3 Jan 2020 05:04 JST", "2020年1月3日 05:04")
    assert japanese.moment(datetime.now(UTC).replace(month=1, day=15, hour=0, minute=5)) == "1月15日 09:05"
    assert {english.number(None), english.yen(None), english.moment(None), texts.Words("ja").clock(None)} == {"–"}

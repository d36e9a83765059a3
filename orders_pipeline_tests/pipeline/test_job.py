"""The job from an uploaded file to its report: the real Dagster job over a real database and real services."""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.base import AssetRecordsFilter

from orders_pipeline.batches import batches
from orders_pipeline.definitions import defs
from orders_pipeline.infrastructure.database_errors import DatabaseUnavailable
from orders_pipeline.intake import steps
from orders_pipeline.orchestration import checks, runs
from orders_pipeline.orchestration.assets.client_day import FIRST_DAY, client_day
from orders_pipeline.records.rejections import FileRejected
from orders_pipeline.samples.synthetic import write_sample
from orders_pipeline.sandbox.faults import Faults
from orders_pipeline_tests.support.factories import order_row, sample_file
from orders_pipeline_tests.support.installation import Installation, check_books, check_finished, open_installation
from orders_pipeline_tests.support.order_file import OrderFile
from orders_pipeline_tests.support.soak import first_of

CODECS = {"utf-8": "utf-8", "utf-8-sig": "utf-8-sig", "cp932": "cp932", "utf-16-le": "utf-16"}
NAMES = {"utf-8": "髙橋 𠮷之介", "utf-8-sig": "髙橋①商店", "cp932": "髙橋①商店", "utf-16-le": "髙橋 𠮷之介"}


@pytest.fixture(scope="module")
def sampled(_module_installation: Installation, tmp_path_factory: pytest.TempPathFactory):
    """A sample file with bad rows, taken all the way: many tests look at it."""
    path = tmp_path_factory.mktemp("files") / "orders.csv"
    made = write_sample(path, rows=100, seed=5, bad=0.27)
    return path, made, taken_by_run(_module_installation, path, "sampled")


def taken_by_run(installation: Installation, path: Path, client: str) -> dict[str, Any]:
    batch_id = installation.receive(path, client)
    assert installation.run(batch_id) is None
    return installation.summary(batch_id)


def file_of(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\r\n" for line in lines), "utf-8")
    return path


def events(installation: Installation, batch_id: str) -> list[dg.EventLogEntry]:
    runs = installation.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": batch_id}))
    return [entry for run in runs for entry in installation.instance.all_logs(run.run_id)]


SHOWN_CHARS = 1_000  # of Markdown: of more Dagster's page shows a link
HEADER = "client_order_ref,customer_code,customer_name,amount,payment_method\r\n"


def failed_checks(installation: Installation, batch_id: str) -> set[str]:
    found = [entry.dagster_event for entry in events(installation, batch_id) if entry.dagster_event]
    evaluations = [
        event.asset_check_evaluation_data for event in found if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {each.check_name for each in evaluations if not each.passed}


def test_a_sample_file_comes_to_what_it_was_made_of_and_to_what_the_services_booked(
    installation: Installation, sampled
) -> None:
    _, made, summary = sampled
    check_finished(installation, summary["batch_id"], "completed_with_errors")
    assert summary["rows"] == {
        "total": 100,
        "accepted": 100 - made.bad.total(),
        "rejected": made.bad.total(),
        "blank": 0,
        "skipped": 0,
    }
    assert summary["rejections"] == dict(made.bad)
    assert summary["amount_jpy"] == {
        "accepted": made.amount,
        "paid": made.amount,
        "declined": 0,
        "unknown": 0,
        "refunded": 0,
        "cancelled": 0,
        "open": 0,
    }
    assert installation.sandbox.ledger(summary["batch_id"])["payments"]["amount_jpy"] == made.amount


def payment_checks(installation: Installation, batch_id: str) -> dict[str, bool]:
    with installation.system.database.begin() as transaction:
        return {result.check_name: result.passed for result in checks.payment_checks(transaction, batch_id)}


def test_no_check_of_a_good_batch_fails_and_all_of_them_ran(installation: Installation, sampled) -> None:
    batch_id = sampled[2]["batch_id"]
    ran = [entry.dagster_event for entry in events(installation, batch_id) if entry.dagster_event]
    names = {
        each.asset_check_evaluation_data.check_name for each in ran if each.event_type_value == "ASSET_CHECK_EVALUATION"
    }
    specs = (
        checks.FILE_ACCEPTED,
        checks.TOTALS_ACCEPTED,
        checks.MOST_ROWS_ACCEPTED,
        checks.ROWS_ADD_UP,
        checks.YEN_ADD_UP,
        checks.LINES_ADD_UP,
        *checks.PAYMENT_CHECKS,
    )
    assert names == {spec.name for spec in specs}
    assert failed_checks(installation, batch_id) == set()


def runs_of(installation: Installation, batch_id: str) -> list[dg.DagsterRun]:
    return list(installation.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": batch_id})))


def metadata_of(installation: Installation, batch_id: str, asset: str) -> dict[str, Any]:
    """Return the metadata of an asset's newest materialization for a batch."""
    wanted = AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[batch_id])
    (record,) = installation.instance.fetch_materializations(wanted, limit=1).records
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def test_a_batch_is_recognised_in_dagster_by_its_client_its_file_and_how_it_stands(
    installation: Installation, sampled
) -> None:
    batch_id = sampled[2]["batch_id"]
    tags = {"orders/client": "sampled", "orders/file": "orders.csv", "orders/status": "completed_with_errors"}
    assert all(tags.items() <= run.tags.items() for run in runs_of(installation, batch_id))
    assert installation.instance.get_runs(dg.RunsFilter(tags=tags | {"dagster/partition": batch_id}))
    for asset in ("staged_orders", "validated_orders", "orders", "payments", "notifications", "batch_report"):
        found = metadata_of(installation, batch_id, asset)
        assert (found["client"], found["file"]) == ("sampled", "orders.csv")
    assert metadata_of(installation, batch_id, "uploaded_csv") == {"client": "sampled", "file": "orders.csv"}
    assert metadata_of(installation, batch_id, "orders")["checks"] == "passed: rows_add_up, yen_add_up, lines_add_up"


def test_a_run_says_how_its_batch_stands_while_it_goes_on(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    add = installation.instance.add_run_tags

    def noted(run_id: str, tags: Mapping[str, str]) -> None:
        said.append(tags["orders/status"])
        add(run_id, tags)

    monkeypatch.setattr(installation.instance, "add_run_tags", noted)
    taken_by_run(installation, sample_file(tmp_path, rows=3, bad=0), "labelled")
    assert list(dict.fromkeys(said)) == ["received", "staged", "validated", "loaded", "paying", "completed"]


def test_the_report_of_a_batch_has_numbers_to_plot_times_of_one_zone_and_charts_that_are_shown_at_once(
    installation: Installation, sampled
) -> None:
    summary = sampled[2]
    found = metadata_of(installation, summary["batch_id"], "batch_report")
    assert (found["rows"], found["rows rejected"]) == (100, summary["rows"]["rejected"])
    assert (found["yen paid"], found["yen declined"], found["yen unknown"]) == (summary["amount_jpy"]["paid"], 0, 0)
    steps = [found[f"seconds {step}"] for step in ("staging", "validating", "loading", "reporting")]
    together = sum(steps) + max(found["seconds paying"], found["seconds notifying"]) + found["seconds waiting"]
    assert together == pytest.approx(found["seconds in all"], abs=0.1)
    for name in ("received", "finished"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d JST", found[name])
    for name in ("summary", "chart of yen", "chart of rejections"):
        assert len(found[name]) < SHOWN_CHARS
    codes = re.findall(r"[\d,]+ (R_[A-Z_]+)%3C/text", found["chart of rejections"])
    assert set(codes) <= set(summary["rejections"])
    assert len(codes) == min(len(summary["rejections"]), 6)


def test_a_clients_day_has_its_files_rows_and_yen(installation: Installation, sampled) -> None:
    summary = sampled[2]
    today = batches.today().isoformat()
    with dg.build_asset_context(partition_key=today) as context:
        found = client_day(context, system=installation.system).metadata
    assert (found["sampled: rows"], found["sampled: rows rejected"]) == (100, summary["rows"]["rejected"])
    assert found["sampled: yen paid"] == summary["amount_jpy"]["paid"]
    (row,) = [record.data for record in found["by client"].records if record.data["client"] == "sampled"]
    assert (row["rows"], row["open"]) == ("100", "0")
    with dg.build_asset_context(partition_key=FIRST_DAY) as context:
        assert client_day(context, system=installation.system).metadata["clients"] == 0


def test_a_partition_that_was_typed_is_refused_at_once_and_taken_away_and_no_check_has_failed(
    installation: Installation,
) -> None:
    instance, typed = installation.instance, "my-batch"
    for job in ("process_batch", "refund_batch"):
        instance.add_dynamic_partitions("batch_id", [typed])
        ended = defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=typed,
            resources={"system": installation.system},
            run_config=runs.QUIET,
            raise_on_error=False,
        )
        said = [event.step_failure_data.user_failure_data for event in ended.all_events if event.is_step_failure]
        assert [str(each and each.description) for each in said] == [
            "E_UNKNOWN_BATCH: there is no batch with this id; the partition that was made by hand is removed"
        ]
        # Dagster tries failed runs again, and shows their checks as failed
        assert [run.status for run in runs_of(installation, typed) if run.job_name == job] == [dg.DagsterRunStatus.CANCELED]
        assert not instance.has_dynamic_partition("batch_id", typed)


def test_result_json_is_what_status_shows(installation: Installation, sampled) -> None:
    summary = sampled[2]
    assert json.loads(installation.report(summary["batch_id"], "result") or b"") == json.loads(json.dumps(summary))


def test_errors_csv_has_a_line_for_every_rejection_and_no_personal_value(installation: Installation, sampled) -> None:
    path, made, summary = sampled
    text = (installation.report(summary["batch_id"], "errors") or b"").decode("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(text)))
    codes = [code for _, code in sorted({(int(line["row"]), line["code"]) for line in lines})]
    assert sorted(codes) == sorted(made.bad.elements())
    assert all(line["message"] and line["message_ja"] for line in lines)
    for value in personal_values(path):
        assert value not in text


def test_running_a_finished_batch_again_sends_nothing_and_changes_nothing(installation: Installation, sampled) -> None:
    summary = sampled[2]
    batch_id = summary["batch_id"]
    before, reports = installation.sandbox.ledger(), [installation.report(batch_id, name) for name in ("rejected", "errors")]
    assert installation.run(batch_id) is None
    assert installation.sandbox.ledger() == before
    after = installation.summary(batch_id)
    assert {**after, "seconds": None} == {**summary, "seconds": None}
    assert [installation.report(batch_id, name) for name in ("rejected", "errors")] == reports
    assert json.loads(installation.report(batch_id, "result") or b"") == json.loads(json.dumps(after))


def test_the_same_file_again_is_refused_and_names_its_batch(installation: Installation, sampled) -> None:
    path, _, summary = sampled
    with pytest.raises(FileRejected) as refused:
        installation.receive(path, "sampled")
    assert (refused.value.code, refused.value.detail) == ("F_DUPLICATE_FILE", {"batch_id": summary["batch_id"]})


def test_the_same_file_again_on_purpose_is_a_batch_whose_orders_all_exist(installation: Installation, sampled) -> None:
    path, _, summary = sampled
    before = installation.sandbox.ledger()
    batch_id = installation.receive(path, "sampled", again=True)
    assert installation.run(batch_id) is None
    again = installation.summary(batch_id)
    assert batch_id != summary["batch_id"]
    assert again["status"] == "rejected"
    assert again["rows"]["accepted"] == 0
    assert again["rejections"]["R_REF_EXISTS"] >= summary["rows"]["accepted"]
    assert installation.sandbox.ledger() == before


@pytest.mark.parametrize("encoding", CODECS)
def test_rejected_csv_holds_the_records_byte_for_byte_with_our_columns(
    installation: Installation, encoding: str, tmp_path: Path
) -> None:
    client = f"given-back-{encoding}"
    made = OrderFile(CODECS[encoding], line_ending="\n" if encoding == "utf-8" else "\r\n")
    name = NAMES[encoding]
    made.add(order_row(client_order_ref="A-1", customer_name=name))
    made.add(
        order_row(client_order_ref="A-2", customer_name=name, amount=" １０,００"), codes="R_AMOUNT_FORMAT", quoted=True
    )
    made.blank()
    made.add(order_row(client_order_ref="A-3", note='一行目\n二行目, "引用"'))
    made.add(
        order_row(client_order_ref="A-4", note="一行目\n二行目", amount="0", currency="USD"),
        codes="R_AMOUNT_RANGE R_CURRENCY",
    )
    made.add(order_row(client_order_ref="A-5", customer_name=name), codes="R_COLUMNS", extra=("余分",))
    made.add(order_row(client_order_ref="A-6", customer_name=""), codes="R_REQUIRED", ended=False)
    summary = installation.take(made.write(tmp_path / "orders.csv"), client)
    assert summary["encoding"] == encoding
    assert summary["rows"] == {"total": 7, "accepted": 2, "rejected": 4, "blank": 1, "skipped": 0}
    given_back = installation.report(summary["batch_id"], "rejected") or b""
    assert given_back == made.rejected_csv(summary["batch_id"])


def test_errors_csv_shows_no_formula_no_secret_and_no_card_number(installation: Installation, tmp_path: Path) -> None:
    made = OrderFile("utf-8")
    for number, formula in enumerate(("=1+1", "+1", "-1", "@SUM(A1)", "＝1+1", " =1+1", "\t=1", "|calc", "%0A")):
        made.add(order_row(client_order_ref=f"B-{number}", payment_method=formula), codes="R_PAYMENT_METHOD")
    made.add(order_row(client_order_ref="B-90", payment_token="geheim!"), codes="R_PAYMENT_TOKEN")
    made.add(order_row(client_order_ref="B-91", item_code="4111111111111111"), codes="R_FORBIDDEN_DATA")
    made.add(order_row(client_order_ref="4111-1111-1111-1111"), codes="R_FORBIDDEN_DATA")
    made.add(order_row(client_order_ref="B-92", email="=niemand"), codes="R_EMAIL")
    summary = installation.take(made.write(tmp_path / "orders.csv"), "formulas")
    text = (installation.report(summary["batch_id"], "errors") or b"").decode("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len([line for line in lines if line["column"] == "payment_method"]) == 9
    for line in lines:
        assert not line["value"].lstrip(" \t\r\n\u3000").startswith(tuple("=+-@|%＝＋－＠")), line
    assert "1+1" in text
    for secret in ("geheim", "4111", "niemand"):
        assert secret not in text


@pytest.mark.parametrize(
    ("code", "content"),
    first_of(
        [
            (
                "F_CONTROL_TOTAL",
                b"client_order_ref,customer_code,customer_name,amount,payment_method\r\nA-1,C-1,A,1000,invoice\r\n",
            ),
            ("F_HEADER_MISSING", b"client_order_ref,amount\r\nA-1,1000\r\n"),
            ("F_ENCODING", "注文番号,金額\r\nA-1,1000\r\n".encode("euc_jp")),
            ("F_EMPTY", b""),
            ("F_NO_ROWS", HEADER.encode()),
        ]
    ),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_rejected_as_a_whole_has_a_report_and_its_run_is_no_failure(
    installation: Installation, code: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(content)
    if code == "F_CONTROL_TOTAL":
        (tmp_path / "orders.manifest.json").write_text('{"row_count": 2}')
    before = installation.sandbox.ledger()
    summary = taken_by_run(installation, path, f"refused-{code}"[:32])
    assert (summary["status"], summary["status_code"]) == ("rejected", code)
    assert summary["rejections"] == {code: 1}
    assert set(summary["artifacts"]) == {"errors", "result"}
    text = (installation.report(summary["batch_id"], "errors") or b"").decode("utf-8-sig")
    assert [line["code"] for line in csv.DictReader(io.StringIO(text))] == [code]
    assert installation.report(summary["batch_id"], "rejected") is None
    assert failed_checks(installation, summary["batch_id"]) == {checks.FILE_ACCEPTED.name}
    assert code in metadata_of(installation, summary["batch_id"], "staged_orders")["checks"] or code == "F_CONTROL_TOTAL"
    (run,) = runs_of(installation, summary["batch_id"])
    assert run.tags["orders/status"] == "rejected"
    assert installation.sandbox.ledger() == before


def test_a_file_of_bad_rows_only_is_rejected_and_nothing_is_sent(installation: Installation, tmp_path: Path) -> None:
    before = installation.sandbox.ledger()
    summary = installation.take(sample_file(tmp_path, rows=20, bad=1.0), "all-bad")
    assert summary["status"] == "rejected"
    assert summary["rows"] == {"total": 20, "accepted": 0, "rejected": 20, "blank": 0, "skipped": 0}
    assert set(summary["artifacts"]) == {"rejected", "errors", "result"}
    assert installation.sandbox.ledger() == before


def test_y11_declined_payments_end_their_orders_and_their_customers_are_notified(
    installation: Installation, tmp_path: Path
) -> None:
    installation.sandbox.change(faults="decline=0.4,seed=2")
    summary = installation.take(sample_file(tmp_path, rows=60), "declined")
    check_finished(installation, summary["batch_id"], "completed_with_errors")
    assert 0 < summary["orders"]["declined"] < 60
    assert summary["notifications"]["sent"] == summary["notifications"]["planned"]
    assert installation.sandbox.ledger(summary["batch_id"])["payments"]["declined"] == summary["payments"]["declined"]


def test_one_order_that_is_declined_does_not_hold_the_others_of_its_customer(
    installation: Installation, tmp_path: Path
) -> None:
    bad = Faults(decline_order=0.1, seed=5)
    installation.sandbox.change(faults="decline_order=0.1,seed=5")
    summary = installation.take(sample_file(tmp_path, rows=60), "one-bad-order")
    check_finished(installation, summary["batch_id"], "completed_with_errors")
    orders = installation.rows(
        "SELECT order_reference(batch_id, import_row_number), status, import_row_number, client_order_ref"
        " FROM orders WHERE batch_id = %s ORDER BY 3",
        summary["batch_id"],
    )
    declined = [(row, ref) for name, _, row, ref in orders if bad.decline_code("", "", [name])]
    assert 0 < len(declined) < 20
    assert [(row, ref) for _, status, row, ref in orders if status == "declined"] == declined
    text = (installation.report(summary["batch_id"], "errors") or b"").decode("utf-8-sig")
    told = [line for line in csv.DictReader(io.StringIO(text)) if line["code"] == "P_DECLINED"]
    assert [(int(line["row"]), line["value"]) for line in told] == declined
    assert summary["notifications"]["sent"] == summary["notifications"]["planned"]


def test_payments_whose_result_comes_later_are_waited_for(installation: Installation, tmp_path: Path) -> None:
    installation.sandbox.change(faults="processing=0.5,processing_s=0.3,retry_after=0")
    summary = installation.take(sample_file(tmp_path, rows=30), "processing")
    check_finished(installation, summary["batch_id"])


def test_an_answer_lost_after_booking_is_looked_up_and_charged_once(
    installation: Installation, impatient: None, tmp_path: Path
) -> None:
    installation.sandbox.change(faults="reset_after=1,max_per_key=1", notification_faults="")
    summary = installation.take(sample_file(tmp_path, rows=30), "lost-answers")
    check_finished(installation, summary["batch_id"])
    assert installation.sandbox.ledger(summary["batch_id"])["payments"]["count"] == summary["payments"]["planned"]


@pytest.mark.parametrize("service", ["payment", "notification"])
def test_a_service_that_is_down_pauses_the_batch_and_a_later_run_finishes_it(
    installation: Installation, impatient: None, service: str, tmp_path: Path
) -> None:
    broken = {"unavailable": 1, "retry_after": "0"}
    options = {"faults": broken, "notification_faults": {}} if service == "payment" else {"notification_faults": broken}
    installation.sandbox.change(**options)
    batch_id = installation.receive(sample_file(tmp_path, rows=20), f"down-{service}")
    failure = installation.run(batch_id)
    code = f"E_{service.upper()}_UNAVAILABLE"
    assert failure is not None
    assert failure.startswith(code)
    paused = check_books(installation, batch_id)
    assert (paused["status"], paused["status_code"]) == ("paused", code)
    assert paused["orders"]["paid"] == (0 if service == "payment" else 20)
    assert json.loads(installation.report(batch_id, "result") or b"")["status"] == "paused"
    installation.sandbox.change(faults={}, notification_faults=None)
    assert installation.run(batch_id) is None
    finished = check_finished(installation, batch_id)
    assert finished["status_code"] is None


def test_y21_a_service_that_is_not_there_pauses_the_batch_and_a_later_run_finishes_it(
    installation: Installation, impatient: None, tmp_path: Path
) -> None:
    batch_id = installation.receive(sample_file(tmp_path, rows=20), "gone")
    installation.sandbox.stop()
    try:
        assert (installation.run(batch_id) or "").startswith("E_PAYMENT_UNAVAILABLE")
        assert installation.summary(batch_id)["orders"]["pending"] == 20
    finally:
        installation.sandbox.start()
    installation.work_off(batch_id)
    check_finished(installation, batch_id)


def test_y10_a_refused_token_stops_at_once_and_leaves_the_orders_as_they_were(
    installation: Installation, tmp_path: Path
) -> None:
    installation.sandbox.change(faults="forbidden=1", notification_faults={})
    batch_id = installation.receive(sample_file(tmp_path, rows=60), "forbidden")
    assert installation.run(batch_id) is not None
    assert check_books(installation, batch_id)["orders"]["pending"] == 60
    installation.sandbox.change(faults={})
    installation.work_off(batch_id)
    check_finished(installation, batch_id)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("rows_total = rows_total {0} 1, rows_accepted = rows_accepted {0} 1", checks.ROWS_ADD_UP),
        ("amount_accepted = amount_accepted {0} 1", checks.YEN_ADD_UP),
    ],
    ids=("rows", "yen"),
)
def test_what_does_not_add_up_stops_the_batch_before_anything_is_paid(
    installation: Installation, change: str, check: dg.AssetCheckSpec, tmp_path: Path
) -> None:
    before = installation.sandbox.ledger()
    batch_id = installation.receive(sample_file(tmp_path, rows=20), check.name)
    for step in (steps.stage_batch, steps.validate_batch, steps.load_batch):
        step(installation.system, batch_id)
    installation.rows(f"UPDATE batches SET {change.format('+')} WHERE batch_id = %s", batch_id)
    assert installation.run(batch_id) is not None
    assert failed_checks(installation, batch_id) == {check.name}
    assert installation.summary(batch_id)["status"] == "loaded"
    assert installation.sandbox.ledger() == before
    installation.rows(f"UPDATE batches SET {change.format('-')} WHERE batch_id = %s", batch_id)
    installation.work_off(batch_id)
    check_finished(installation, batch_id)


def test_an_order_that_is_paid_without_a_payment_is_seen(installation: Installation, tmp_path: Path) -> None:
    summary = installation.take(sample_file(tmp_path, rows=20), "tampered")
    assert all(payment_checks(installation, summary["batch_id"]).values())
    installation.rows(
        "UPDATE orders SET status = 'declined' WHERE batch_id = %s AND import_row_number = 7", summary["batch_id"]
    )
    assert payment_checks(installation, summary["batch_id"]) == {
        checks.WITHIN_CAP.name: True,
        checks.PAID_ONCE.name: True,
        checks.PAID_YEN_ADD_UP.name: False,
    }
    assert installation.run(summary["batch_id"]) is not None


def test_y23_an_order_of_exactly_the_limit_is_paid_and_no_payment_is_above_it(
    installation: Installation, tmp_path: Path
) -> None:
    made = OrderFile("utf-8")
    for number, amount in enumerate((1_000_000, 999_999, 1, 1, 600_000, 400_000)):
        made.add(order_row(client_order_ref=f"L-{number}", amount=str(amount)))
    made.add(order_row(client_order_ref="L-9", amount="1000001"), codes="R_AMOUNT_OVER_LIMIT")
    summary = installation.take(made.write(tmp_path / "orders.csv"), "limits")
    assert summary["amount_jpy"]["paid"] == 3_000_001
    never = ("declined", "cancelled", "unknown", "refunded")
    assert summary["payments"] == {"planned": 4, "succeeded": 4} | dict.fromkeys(never, 0)
    check_finished(installation, summary["batch_id"], "completed_with_errors")


PERSONAL = ("customer_name", "customer_name_kana", "email", "phone", "postal_code", "ship_to_address", "payment_token")


def personal_values(path: Path) -> set[str]:
    """Return every personal or secret cell of a file; what is too short to be told from other text is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row[name] for row in rows for name in PERSONAL if row[name] and len(row[name]) > 3}


def leaks(
    installation: Installation, schema: str, values: set[str], *, sealed: tuple[str, ...] = ()
) -> set[tuple[str, str]]:
    """Return (table, value) for each value found in clear anywhere in a schema's tables, packed or escaped."""
    needles = {value: {value.encode(), json.dumps(value)[1:-1].encode()} for value in values}
    found = set()
    for (table,) in installation.rows("SELECT tablename FROM pg_tables WHERE schemaname = %s", schema):
        for row in installation.rows(f'SELECT * FROM {schema}."{table}"'):
            text = b"\n".join(cell_bytes(cell) for cell in row)
            found |= {(table, value) for value, forms in needles.items() if any(form in text for form in forms)}
    return found


def cell_bytes(cell: object) -> bytes:
    if not isinstance(cell, bytes | memoryview):
        return str(cell).encode("utf-8", "surrogatepass")
    try:
        return zlib.decompress(bytes(cell))
    except zlib.error:
        return bytes(cell)


def test_nothing_personal_is_in_dagsters_records_or_in_clear_in_ours(installation: Installation, sampled) -> None:
    path, _, summary = sampled
    values = personal_values(path)
    assert len(values) > 50
    assert leaks(installation, "dagster", {summary["batch_id"]}), "the search finds what is there"
    assert leaks(installation, "public", {"S5-00000001"}), "the search finds what is there"
    assert leaks(installation, "dagster", values) == set()
    assert leaks(installation, "public", values) == set()


def test_what_fails_leaves_nothing_personal_in_dagsters_records_or_the_log(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = sample_file(tmp_path, rows=10, seed=77)
    values = personal_values(path)

    def fail(*_: object, **__: object) -> None:
        raise ValueError("secret " + " ".join(sorted(values)))

    monkeypatch.setattr(batches, "final_status", fail)
    batch_id = installation.receive(path, "failing")
    assert (installation.run(batch_id) or "").startswith("E_UNEXPECTED")
    said = "".join(capfd.readouterr())
    log = (installation.home / "errors.log").read_text("utf-8")
    assert "Traceback" not in said
    assert "ValueError" in log
    assert not [value for value in values if value in said + log]
    assert leaks(installation, "dagster", values) == set()
    monkeypatch.undo()
    installation.work_off(batch_id)
    check_finished(installation, batch_id)


def test_dagsters_records_that_do_not_answer_are_told_by_our_code_alone(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        installation.rows("ALTER TABLE dagster.event_logs RENAME TO away")
        raise ValueError

    monkeypatch.setattr(steps, "stage_batch", fail)
    batch_id = installation.receive(sample_file(tmp_path, rows=10, seed=78), "unrecorded")
    try:
        with pytest.raises(DatabaseUnavailable):
            installation.run(batch_id)
    finally:
        installation.rows("ALTER TABLE dagster.away RENAME TO event_logs")
    said = "".join(capfd.readouterr())
    assert "E_DATABASE_UNAVAILABLE" in said
    assert "INSERT" not in said


def test_a_service_that_takes_many_notifications_in_one_call_gets_few_calls(
    server_url: str, template: str, tmp_path: Path
) -> None:
    with open_installation(server_url, template, tmp_path) as installation:
        installation.sandbox.change(bulk=True)
        summary = installation.take(sample_file(tmp_path, rows=300, seed=9), "many")
        check_finished(installation, summary["batch_id"])
        told = installation.sandbox.ledger(summary["batch_id"])["notifications"]
        assert told["sent"] == summary["notifications"]["sent"] > 40
        assert told["duplicates"] == 0
        assert told["calls"] < told["sent"] / 2

"""What is shown of files: where one is sent and what its check found, how a batch stands, and which there were."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Row
from starlette.responses import RedirectResponse, Response

from orders_pipeline.batches import batches
from orders_pipeline.batches.artifacts import STAGED
from orders_pipeline.clients.api_tokens import WRITE
from orders_pipeline.infrastructure.scratch import Scratch
from orders_pipeline.intake.file_staging import limits_of
from orders_pipeline.records.corrected_rows import UNDECIDED
from orders_pipeline.records.rejections import Language, message
from orders_pipeline.settlement.standing_still import standing_still_since
from orders_pipeline.upkeep import cancelling
from orders_pipeline.web import submission
from orders_pipeline.web.batches import batch_object
from orders_pipeline.web.calls import Call, moment, own_batch
from orders_pipeline.web.page.rendering import Visit
from orders_pipeline.web.page.texts import TEXTS
from orders_pipeline.web.problems import Problem
from orders_pipeline.web.uploads import Upload

RECENT, LISTED = 5, 50
SHOWN_ERRORS = 100
SAMPLE, SAMPLE_ROWS = ("client_order_ref", "customer_code", "customer_name", "amount"), 3
MIB = 1 << 20
AS_WANTED = {"W_ROWS_SKIPPED"}  # said of a file in which nothing is wrong
NOT_CLOSED = "W_ROWS_NOT_CLOSED"
# of a row that repeats one that was received, or is no order: it waits for no correction
ANSWERED = {"R_REF_DUP_IN_FILE", "R_REF_EXISTS"}
NO_ORDER = {"R_REF_SPENT", "R_CORRECTED_BEFORE", "R_CORRECTED_ROW", "R_EXAMPLE_ROW", "R_TOTAL_ROW"}
COUNTED = ("paid", "declined", "unknown", "refunded", "cancelled")


@dataclass(frozen=True)
class Kind:
    """What is wrong with some rows: a code in a column, with its sentence, and how many there are."""

    column: str
    code: str
    sentence: str
    rows: int


def show_send(visit: Visit) -> Response:
    """Show where a file is sent, and the newest ones."""
    caller = visit.who
    settings, clients = visit.system.settings, visit.system.clients
    limits = limits_of(settings, clients.profile(caller.client_code)) if caller.client_code else None
    return visit.render(
        "send.html",
        may_send=WRITE in caller.scopes,
        mb=(settings.max_bytes if limits is None else limits.max_bytes) // MIB,
        rows=settings.max_rows if limits is None else limits.max_rows,
        clients=sorted(clients.profiles) if caller.is_operator else None,
        **_listed(visit, RECENT, None),
    )


def show_check(call: Call, given: Mapping[str, str], upload: Upload, folder: Scratch) -> Response:
    """Show what would become of a file that nothing has been kept of; a part of the page where it is sent."""
    visit = Visit(call.system, call.request, call.caller)
    found = submission.checked(call, given, upload, folder)
    language = visit.language
    sentences = [{**each, "says": each["message" if language == "en" else "message_ja"]} for each in found["errors"]]
    return visit.render(
        "check.html",
        found=found,
        name=upload.name,
        sha256=upload.sha256,
        kinds=_kinds_of([each for each in sentences if each["row"] is not None]),
        errors=[each for each in sentences if each["row"] is not None][:SHOWN_ERRORS],
        refusal=next((each["says"] for each in sentences if each["row"] is None), None) if found["status_code"] else None,
        not_closed=next((each["says"] for each in sentences if each["code"] == NOT_CLOSED), None),
        waiting=waiting_rows(found["errors"]),
        key=uuid.uuid4().hex,
        **_sample(folder, {} if found["status_code"] else found["headers"]),
    )


def _sample(folder: Scratch, headers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return some cells of the first rows as they were read, under the client's own headers: names show what is garbled."""
    if not headers:
        return {"sample": [], "numbers": []}
    with pq.ParquetFile(folder / STAGED) as file:
        rows = pa.Table.from_batches(islice(file.iter_batches(SAMPLE_ROWS), 1), file.schema_arrow).to_pylist()
    shown = {column: " + ".join(headers[column]) for column in SAMPLE if headers.get(column)}
    sample = [{header: row[column] or "" for column, header in shown.items()} for row in rows]
    return {"sample": sample, "numbers": [shown.get("amount")]}


def waiting_rows(errors: Sequence[Mapping[str, Any]]) -> tuple[int, bool]:
    """Return how many rows would wait to be corrected, and whether all of them do for a decision."""
    codes: dict[int, set[str]] = {}
    for each in errors:
        if each["row"] is not None:
            codes.setdefault(each["row"], set()).add(each["code"])
    waiting = [of_row for of_row in codes.values() if not (of_row <= ANSWERED or of_row & NO_ORDER)]
    return len(waiting), all(UNDECIDED in of_row for of_row in waiting)


def _kinds_of(errors: Sequence[Mapping[str, Any]]) -> list[Kind]:
    kinds: dict[tuple[str, str], Kind] = {}
    for each in errors:
        column = each["header"] or each["column"] or ""
        known = kinds.get((column, each["code"]))
        rows = 1 if known is None else known.rows + 1
        kinds[column, each["code"]] = Kind(column, each["code"], each["says"], rows)
    return sorted(kinds.values(), key=lambda kind: -kind.rows)


def show_batch(visit: Visit) -> Response:
    """Show how a batch stands."""
    batch_id = str(visit.request.path_params["batch_id"])
    client_code = visit.who.client_code
    batch = batch_object(visit.system, visit.who, batch_id)
    with visit.system.database.begin() as transaction:
        found = transaction.rows("api_rejections_by_kind", batch_id=batch_id, client_code=client_code)
        file = own_batch(transaction, visit.who, batch_id)
        to_fix: Sequence[Row[Any]] = ()
        if batch["corrections"]["rows_open"]:
            to_fix = transaction.rows("page_rows_to_correct", bulk_import_group=batch["import_group"])
        sender = transaction.scalar("api_sender", who=file.submitted_by)
        decided_by = transaction.scalar("api_sender", who=(batch["approval"] or {}).get("decided_by"))
        refund = next(iter(transaction.rows("page_refunds", batch_ids=[batch_id])), None)
        is_refused = batch["approval"] is not None and batch["approval"]["decision"] == "refused"
        cancellation = None if is_refused else batch["cancellation"]
        cancelled_by = transaction.scalar("api_sender", who=(cancellation or {}).get("by"))
    headers = (file.source_layout or {}).get("headers", {})
    language, sums = visit.language, _sums(batch)
    return visit.render(
        "batch.html",
        batch=batch,
        client_code=client_code,
        submitted_by=sender,
        decided_by=decided_by,
        cancelled_by=cancelled_by,
        no_reason=cancelling.NO_REASON,
        says=_says(batch),
        steps=_steps(batch),
        bars=[each for each in batch["progress"]["phases"] if each["name"] in ("pay", "notify")],
        milestone=_milestone(batch, refund),
        refund=refund,
        kinds=[_kind(each, headers, language) for each in found if each.first_row is not None],
        said=[
            (each.code not in AS_WANTED, _kind(each, headers, language).sentence) for each in found if each.first_row is None
        ],
        to_fix=[each for each in to_fix if not each.is_under_way],
        open_here=_open_here(batch, to_fix),
        under_way=[each for each in to_fix if each.is_under_way],
        orders=_accepted_orders(batch),
        sums=sums,
        open=next((line for line in sums if line[0] == "open"), None),
    )


def _open_here(batch: Mapping[str, Any], to_fix: Sequence[Row[Any]]) -> int | None:
    """Return how many rows of rejected.csv wait for a correction, once corrections came; None while that is all of them."""
    is_read = not (batch["status_code"] or "").startswith("F_")
    here = sum(each.rows_open for each in to_fix if each.batch_id == batch["batch_id"])
    return int(here) if is_read and batch["corrections"]["batches"] > 1 and here < (batch["rows"]["rejected"] or 0) else None


def _kind(row: Row[Any], headers: Mapping[str, Sequence[str]], language: Language) -> Kind:
    column = " + ".join(headers.get(row.column_name or "", ())) or row.column_name or ""
    return Kind(column, row.code, message(row.code, language, row.detail), row.rows)


def _says(batch: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
    """Return the sentence about a batch's state."""
    code = batch["status_code"]
    if batch["status"] in ("paused", "received", "staged", "validated", "loaded", "paying") and code is not None:
        return (code, {}) if code in TEXTS else ("E_ELSE", {"code": code})
    if batch["status"] in ("cancelling", "cancelled") and batch["approval"] and batch["approval"]["decision"] != "approved":
        return f"says_{batch['status']}_unpaid", {}
    if batch["status"] == "cancelled" and _are_all_paid(batch):
        return "says_cancelled_paid", {}
    return f"says_{batch['status']}{_how_it_ended(batch)}", {}


def _how_it_ended(batch: Mapping[str, Any]) -> str:
    """Return what there is to say beyond the state of a batch that took nothing, or of which all is done."""
    rows, rows_open = batch["rows"], batch["corrections"]["rows_open"]
    if batch["status"] == "rejected":
        return "_corrected" if batch["status_code"] is None and rows["rejected"] and not rows_open else ""
    if batch["status"] == "completed" and not rows["accepted"]:
        return "_none"
    return "_rows_open" if batch["status"] == "completed" and rows_open else ""


def _are_all_paid(batch: Mapping[str, Any]) -> bool:
    paid = batch["orders"]["paid"] + batch["orders"]["refunded"]
    return bool(paid) and paid == _accepted_orders(batch)


def _steps(batch: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each step with how far it is; what a batch that has ended early never came to was left undone."""
    phases = batch["progress"]["phases"]
    if batch["status"] not in ("rejected", "cancelling", "cancelled"):
        return [(each["name"], each["state"]) for each in phases]
    reached = {"receive", "report"} | ({"check"} if batch["rows"]["total"] is not None else set())
    if batch["payments"]["planned"] or batch["approval"]:  # who has to approve it is asked once it is loaded
        reached |= {"load"}
    orders, notices = batch["orders"], batch["notifications"]
    unpaid = sum(orders[each] for each in ("pending", "paying", "unknown", "cancelled"))
    unsent = notices["planned"] - notices["sent"] - notices["failed"]
    counts = {"pay": (orders["paid"], unpaid), "notify": (notices["sent"], unsent)}
    begun = {name: "done_in_part" if left else "done" for name, (done, left) in counts.items() if done}
    ended = dict.fromkeys(reached, "done") | begun
    return [(each["name"], ended.get(each["name"], "left_undone")) for each in phases]


def _milestone(batch: Mapping[str, Any], refund: Row[Any] | None) -> str:
    """Return what a screen reader hears of once: a new state, standing still, another quarter of what is sent, refunds."""
    quarters = []
    for each in batch["progress"]["phases"]:
        if each.get("total"):
            quarters.append(f"{each['name']}{each['done'] * 4 // each['total']}")
    waits = [] if refund is None or not refund.orders_undecided else ["refund-waits"]
    refunds = (
        [] if refund is None else [f"refunds{refund.orders_refunded}" if not refund.orders_open else "refunding", *waits]
    )
    still = ["still"] if batch["standing_still_since"] else []
    return " ".join([batch["status"], *still, *quarters, *refunds])


def _accepted_orders(batch: Mapping[str, Any]) -> int:
    """Return how many orders the accepted rows are."""
    phases = batch["progress"]["phases"]
    return next(each["total"] for each in phases if each["name"] == "load") or 0


def _sums(batch: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return the states of accepted orders, with how many and how many yen; they add up to what was accepted."""
    orders, yen = batch["orders"], batch["amount_jpy"]
    accepted = yen["accepted"]
    if accepted is None:
        return []
    lines = [("cancelled_orders" if each == "cancelled" else each, orders[each], yen[each]) for each in COUNTED]
    rest = _accepted_orders(batch) - sum(orders[each] for each in COUNTED)
    lines.insert(2, ("open", rest, accepted - sum(yen[each] for each in COUNTED)))
    return [line for line in lines if line[1] or line[0] == "paid"]


def show_history(visit: Visit) -> Response:
    """Show a page of the batches that there were, the newest first."""
    given = visit.request.query_params
    before = (moment(given.get("before")), given.get("id", "")) if given.get("before") else None
    if before is not None and not batches.BATCH_ID.fullmatch(before[1]):
        raise Problem("malformed-request")
    found = _listed(visit, LISTED, before)
    return visit.render("history.html", **found, is_first=before is None)


def _listed(visit: Visit, limit: int, before: tuple[str | None, str] | None) -> dict[str, Any]:
    """Return batches of the client, or for an operator of all, the newest first, with refunds and which stand still."""
    before_at, before_id = before or ("infinity", "")
    client_code = visit.who.client_code
    place = {"before_at": before_at, "before_id": before_id, "limit": limit + 1}
    with visit.system.database.begin() as transaction:
        if visit.who.is_operator:
            rows = transaction.rows("page_batches_of_all", **place)
        else:
            rows = transaction.rows("page_batches", client_code=client_code, **place)
        shown = rows[:limit]
        refunds = transaction.rows("page_refunds", batch_ids=[each.batch_id for each in shown])
    still = standing_still_since(visit.system, [each.batch_id for each in shown])
    of_batches = {"refunds": {each.batch_id: each for each in refunds}, "still": still}
    return {"batches": shown, **of_batches, "has_more": len(rows) > limit}


def show_start(visit: Visit) -> Response:
    """Lead a client's person to where files are sent, or looked at, and an operator to the overview."""
    if visit.who.is_operator:
        return RedirectResponse("/overview", 303)
    return RedirectResponse("/send" if WRITE in visit.who.scopes else "/history", 303)

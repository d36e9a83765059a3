"""Lists that people download from the page, made when they ask; reports that are kept are in `web/files.py`."""

from __future__ import annotations

import csv
import io

from starlette.responses import Response

from orders_pipeline.reports.errors_csv import safe_cell
from orders_pipeline.web.calls import own_batch
from orders_pipeline.web.files import attachment
from orders_pipeline.web.page.rendering import Visit
from orders_pipeline.web.page.texts import Words

NOT_NOTIFIED = ("client_order_ref", "customer_code", "amount", "notify_channel")


def give_not_notified(visit: Visit) -> Response:
    """Answer with the orders of a cancelled batch that are paid and whose customers are not notified, as a CSV file."""
    batch_id = str(visit.request.path_params["batch_id"])
    with visit.system.database.begin() as transaction:
        batch = own_batch(transaction, visit.who, batch_id)
        orders = transaction.rows("page_paid_not_notified", batch_id=batch_id, client_code=visit.who.client_code)
    headers = (batch.source_layout or {}).get("headers", {})
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    named = [safe_cell(" + ".join(headers.get(each, ())) or each) for each in NOT_NOTIFIED]
    writer.writerow([Words(visit.language)("row"), *named])
    for order in orders:
        cells = (getattr(order, each) for each in NOT_NOTIFIED)
        writer.writerow([order.import_row_number, *(safe_cell(each) if isinstance(each, str) else each for each in cells)])
    content = text.getvalue().encode("utf-8-sig")  # whose mark says to spreadsheets that it is UTF-8
    return Response(content, media_type="text/csv", headers=attachment(f"{batch_id}-not-notified.csv"))

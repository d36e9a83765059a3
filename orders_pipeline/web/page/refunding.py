"""The refund of a file, or of some of its orders: what it would come to is shown, and a person confirms that for a reason.

What is confirmed goes to the batch API, where it is written down and carried out; nothing is refunded here.
"""

from __future__ import annotations

import re

from starlette.responses import Response

from orders_pipeline.settlement.refunds.plan import REF, UnknownOrders, read_plan
from orders_pipeline.web.batches import batch_object
from orders_pipeline.web.page.rendering import Visit

BETWEEN = re.compile(r"[\s,、，]+")
MOST_NAMED = 10  # references that are not in the file


def show_refund(visit: Visit) -> Response:
    """Show what a refund would come to, and where it is confirmed."""
    batch_id = str(visit.request.path_params["batch_id"])
    batch = batch_object(visit.system, visit.who, batch_id)
    refs = list(dict.fromkeys(filter(None, BETWEEN.split(visit.request.query_params.get("orders", "")))))
    missing = [ref for ref in refs if not REF.fullmatch(ref)]
    plan = None
    if not missing:
        try:
            plan = read_plan(visit.system.database, batch_id, refs)
        except UnknownOrders as unknown:
            missing = [*unknown.missing]
    return visit.render(
        "refund.html",
        batch=batch,
        client_code=visit.who.client_code,
        refs=refs,
        missing=missing,
        named=", ".join([*missing[:MOST_NAMED], *(["…"] if len(missing) > MOST_NAMED else [])]),
        plan=plan and plan.as_dict(),
        digest=plan and plan.digest,
    )

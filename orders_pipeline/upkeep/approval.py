"""Approval of a batch by somebody else than who sent it: approved, it is paid; refused, it is cancelled.

Whether a batch needs it is said by its client's profile when it is validated, and it waits once it is loaded. From then on
the schema lets neither its rows nor its yen change, and none of its payments be claimed before it is approved.
"""

from __future__ import annotations

from orders_pipeline.batches import batches
from orders_pipeline.batches.batches import AWAITING_APPROVAL, Batch
from orders_pipeline.clients.api_tokens import OPERATOR
from orders_pipeline.infrastructure.database import Transaction


class NotAwaitingApproval(Exception):
    """The batch does not wait for approval, or somebody has said otherwise."""

    code = "E_NOT_AWAITING_APPROVAL"


class OwnBatch(Exception):
    """Who sent a batch does not approve or refuse it."""

    code = "E_OWN_BATCH"


def approve(transaction: Transaction, batch_id: str, *names: str) -> None:
    """Let a batch that waits be paid, once however often it is said; raise NotAwaitingApproval, OwnBatch or UnknownBatch.

    The first of the `names` of who says so is kept, and none of them is the sender's.
    """
    _require_may_say(transaction, batch_id, "approved", names)
    transaction.execute("approve_batch", batch_id=batch_id, decided_by=names[0])


def refuse(transaction: Transaction, batch_id: str, *names: str, why: str) -> None:
    """Have a batch that waits cancelled, as above; a run, or `cancelling.finish`, brings it to its end."""
    _require_may_say(transaction, batch_id, "refused", names)
    transaction.execute("refuse_batch", batch_id=batch_id, decided_by=names[0], why=why)


def may_decide(batch: Batch, *names: str) -> bool:
    """Return whether a batch waits for the word of somebody with these names."""
    return bool(batch.status == AWAITING_APPROVAL and not _is_own(batch, names))


def _require_may_say(transaction: Transaction, batch_id: str, decision: str, names: tuple[str, ...]) -> None:
    transaction.row("lock_batch", batch_id=batch_id)
    batch = batches.get(transaction, batch_id)
    if batch.status != AWAITING_APPROVAL and batch.approval_decision != decision:
        said = f" ({batch.approval_decision} by {batch.approval_decided_by})" if batch.approval_decision else ""
        raise NotAwaitingApproval(f"{NotAwaitingApproval.code}: the batch is {batch.status}{said}")
    if _is_own(batch, names):
        how = "another user of this machine, or somebody else on the page or through the API"
        raise OwnBatch(f"{OwnBatch.code}: {batch.submitted_by} has sent the batch: somebody else has to say so ({how})")


def _is_own(batch: Batch, names: tuple[str, ...]) -> bool:
    return batch.submitted_by is not None and _person(batch.submitted_by) in map(_person, names)


def _person(name: str) -> str:
    """Return a name as it is compared: a user of this machine is the same one on the page, signed in by the link of `up`."""
    return name.casefold().removeprefix(f"{OPERATOR}/")

"""What a file that is tried would come to: its rows judged as those of a batch are, without the orders received before.

How the file is read, and what is guessed of it, is in `profile_trial.py`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orders_pipeline.batches.artifacts import ACCEPTED, REJECTIONS, STAGED
from orders_pipeline.clients.profiles import Profile
from orders_pipeline.infrastructure.scratch import Scratch
from orders_pipeline.intake import declarations, validation
from orders_pipeline.intake.csv_file import StagedFile
from orders_pipeline.intake.file_validation import context_of
from orders_pipeline.intake.grouped_validation import validate_grouped
from orders_pipeline.intake.repeated_orders import RepeatedOrders
from orders_pipeline.intake.validation import Validated
from orders_pipeline.records.orders import ORDERS, PAYMENT_METHODS
from orders_pipeline.records.rejections import FileRejected

MOST_WORDS = 10
_METHOD, _TOKEN, _CARD = "payment_method", "payment_token", "card_on_file"


@dataclass(frozen=True)
class Outcome:
    """What a file would come to: its counts, its skipped rows in words, and words for how it is paid that cannot be.

    `unknown` are words that are no payment method, and `without_token` those for a card of whose token the file has none.
    `refusal` says why nothing of the file would be taken, whatever its rows are.
    """

    counts: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""
    unknown: Sequence[str] = ()
    without_token: Sequence[str] = ()
    refusal: FileRejected | None = None


def outcome_of(folder: Scratch, profile: Profile, staged: StagedFile) -> Outcome:
    """Judge the rows of a file that is staged in a folder."""
    result, refusal = _judged(folder, profile, staged.encoding), None
    try:
        declarations.check_validated(profile, None, result)
    except FileRejected as why:
        read = result.rows_accepted + result.rows_rejected
        result, refusal = Validated(rows_rejected=read, rejections=result.rejections), why
    counts = {
        "rows": {
            "total": staged.rows_total,
            "accepted": result.rows_accepted,
            "rejected": result.rows_rejected,
            "blank": staged.rows_blank,
            "skipped": staged.rows_skipped,
        },
        "orders": {"accepted": result.rows_accepted - result.rows_continuing},
        "amount_jpy": {"accepted": result.amount_accepted},
        "rejections": dict(result.rejections.most_common()),
    }
    skipped = next((each.detail["by"] for each in staged.warnings if each.code == "W_ROWS_SKIPPED"), "")
    cells = pq.read_table(folder / STAGED, columns=[_METHOD])[_METHOD]
    words = of_words(cells, profile, staged.columns)
    return replace(words, counts=counts, skipped=skipped, refusal=refusal)


def of_words(cells: pa.Array | pa.ChunkedArray, profile: Profile, columns: Container[str]) -> Outcome:
    """Return what there is to say of the words in which cells say how is paid; `columns` are those that the file has.

    How money is taken is not guessed: nobody but the client knows the meaning of an unknown word.
    """
    words = [word.strip() for word in pc.unique(cells).to_pylist() if word and word.strip()]
    codes = ORDERS.by_name[_METHOD].normalised(pa.array(words, pa.string()), context_of(profile, "")).to_pylist()
    unknown = [word for word, code in zip(words, codes, strict=True) if code not in PAYMENT_METHODS]
    cards = [word for word, code in zip(words, codes, strict=True) if code == _CARD and _TOKEN not in columns]
    return Outcome(unknown=unknown[:MOST_WORDS], without_token=cards[:MOST_WORDS])


def _judged(folder: Scratch, profile: Profile, encoding: str) -> Validated:
    paths = (folder / STAGED, folder / ACCEPTED, folder / REJECTIONS)
    context, grouping = context_of(profile, encoding), profile.grouping()
    if grouping is None:
        return validation.validate(
            *paths, record_type=ORDERS, context=context, seal=validation.nothing_sealed, existing=lambda _: {}
        )
    none = RepeatedOrders(ORDERS, lambda _: {}, lambda rows, _: [()] * len(rows.number), lambda _: {})
    return validate_grouped(*paths, context=context, grouping=grouping, seal=validation.nothing_sealed, repeated=none)

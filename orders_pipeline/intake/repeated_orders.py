"""Repeated orders: rows of a file whose references the client's orders of other batches have, or have given up.

Which references are known is found out by functions that are handed in (`received_before.py`). Rows of one file that
repeat each other are in `duplicate_rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orders_pipeline.records.corrected_rows import DIGITS_KEPT
from orders_pipeline.records.judgement import Findings, Mask, Positions, Rows, as_json
from orders_pipeline.records.record_type import RecordType

Existing: TypeAlias = Callable[[Sequence[str]], Mapping[str, str]]
Differing: TypeAlias = Callable[[Rows, Sequence[str]], Sequence[Sequence[str]]]

_SHORTENED_LOOKED_AT = 100  # references of a chunk


def none_is_settled(_: Sequence[str]) -> Mapping[str, str]:
    """Return that no order is: then no row is skipped for being the same as one."""
    return {}


@dataclass(frozen=True)
class RepeatedOrders:
    """Notes which rows repeat orders; the functions are those of `validation.validate`.

    `settled` returns the batch of each reference whose order nobody can lose without knowing of it.
    """

    record_type: RecordType
    existing: Existing
    differing: Differing
    given_up: Existing
    settled: Existing = none_is_settled

    def add_existing(self, rows: Rows, findings: Findings) -> Positions:
        """Note references that orders have; return those rows that are the same as an order that is settled."""
        taken = self._found_among(rows, findings.bad_in(self.record_type.identity), self.existing)
        if taken:
            chosen = _mask(findings.size, list(taken))
            references = self._folded(rows).filter(pa.array(chosen)).to_pylist()
            columns = self.differing(rows.where(chosen), references)
            details = {at: {"batch_id": batch} for at, batch in taken.items()}
            self._note(findings, details, columns, lambda differing: not differing)
            alike = {at: ref for at, ref, each in zip(taken, references, columns, strict=True) if not each}
            settled = self.settled([*alike.values()]) if alike else {}  # asked last: a batch may be cancelled meanwhile
            return np.array([at for at, ref in alike.items() if settled.get(ref) == taken[at]], np.intp)
        return np.empty(0, np.intp)

    def add_shortened(self, rows: Rows, findings: Findings, corrected: Sequence[int]) -> None:
        """Note references that a spreadsheet has taken the zeros of, where a file that was received comes again that way.

        A few references of the chunk show how long the references were. Some rows must be what was received, but for what a
        spreadsheet changes; then the others with such a reference are not, but the same orders. `corrected` are the
        positions of corrections, whose references are settled.
        """
        folded = self._folded(rows)
        is_number = pc.match_substring_regex(folded, f"^[1-9][0-9]{{0,{DIGITS_KEPT - 2}}}$").to_numpy(zero_copy_only=False)
        passed = findings.bad_in(self.record_type.identity)
        passed[corrected] = True
        numbers = np.flatnonzero(is_number & ~passed)
        if not len(numbers):
            return
        references = folded.take(pa.array(numbers)).to_pylist()
        some = references[:: -(-len(references) // _SHORTENED_LOOKED_AT)]
        longer = [ref.zfill(n) for ref in some for n in range(len(ref) + 1, DIGITS_KEPT + 1)]
        lengths = {len(each) for each in self.existing(longer)}
        known = self.existing([ref.zfill(n) for ref in references for n in lengths if n > len(ref)]) if lengths else {}
        taken = {
            at: next(ref.zfill(n) for n in lengths if ref.zfill(n) in known)
            for at, ref in zip(numbers.tolist(), references, strict=True)
            if any(ref.zfill(n) in known for n in lengths)
        }
        if not taken:
            return
        columns = self.differing(rows.where(_mask(findings.size, list(taken))), list(taken.values()))
        kept = self._columns_that_spreadsheets_keep()
        if any(map(kept.isdisjoint, columns)):
            details = {at: {"batch_id": known[reference], "reference": reference} for at, reference in taken.items()}
            self._note(findings, details, columns, kept.isdisjoint)

    def add_given_up(self, rows: Rows, findings: Findings, kept: Sequence[int]) -> None:
        """Note references that were given up for another one, but for rows (`kept`) that may keep their own."""
        passed = findings.bad_in(self.record_type.identity)
        passed[kept] = True
        if taken := self._found_among(rows, passed, self.given_up):
            details = [as_json({"batch_id": batch_id}) for batch_id in taken.values()]
            findings.add_each(self.record_type.identity, "R_REF_SPENT", np.array(list(taken)), details)

    def _folded(self, rows: Rows) -> pa.Array:
        return self.record_type.folded(rows.text[self.record_type.identity])

    def _columns_that_spreadsheets_keep(self) -> set[str]:
        """Return the amount, dates and names: where none of these differs, a row is taken for the order received."""
        columns = self.record_type.columns
        kept = {each.name for each in columns if each.kind == "date" or (each.kind == "text" and each.required)}
        return {self.record_type.amount, *kept}

    def _note(
        self,
        findings: Findings,
        taken: Mapping[int, Mapping[str, str]],
        columns: Sequence[Sequence[str]],
        is_alike: Callable[[Sequence[str]], bool],
    ) -> None:
        """Note rows that were received before, each with its detail, and the columns in which those not alike differ."""
        for code, alike in (("R_REF_EXISTS", True), ("R_REF_EXISTS_DIFFERS", False)):
            these = [(at, each) for at, each in zip(taken, columns, strict=True) if is_alike(each) == alike]
            if these:
                details = [as_json({**taken[at]} | ({} if alike else {"columns": ", ".join(each)})) for at, each in these]
                findings.add_each(self.record_type.identity, code, np.array([at for at, _ in these]), details)

    def _found_among(self, rows: Rows, passed: Mask, known_of: Existing) -> dict[int, str]:
        """Return the positions of the references, but for those passed over, that are known, each with its batch."""
        references = self._folded(rows).filter(pa.array(~passed)).to_pylist()
        known = known_of(references) if references else {}
        if not known:
            return {}
        places = np.flatnonzero(~passed).tolist()
        return {at: known[name] for at, name in zip(places, references, strict=True) if name in known}


def _mask(size: int, positions: Sequence[int]) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[positions] = True
    return mask

"""Reading a Pandera schema's verdicts as one boolean mask per check.

The masks say what `schema.validate(lazy=True)` says, without building its table of failures, which costs more than the
checks and repeats cells' values. What the verdicts mean for a row is decided in `validation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera

Mask: TypeAlias = "npt.NDArray[np.bool_]"


def column_failures(column: pandera.Column, cells: pd.Series[Any]) -> list[Mask]:
    """Return for each of the column's checks, in order, which cells fail it."""
    return _failures(column.checks, cells)


def row_failures(schema: pandera.DataFrameSchema, rows: pd.DataFrame) -> list[Mask]:
    """Return for each of the schema's checks across columns, in order, which rows fail it."""
    return _failures(schema.checks, rows)


def _failures(checks: Sequence[pandera.Check], checked: pd.Series[Any] | pd.DataFrame) -> list[Mask]:
    return [~check(checked).check_output.to_numpy(dtype=bool) for check in checks]

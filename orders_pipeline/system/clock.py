"""Our clock against the database's, which all hosts share: by both it is decided whether a run that began has a process."""

from __future__ import annotations

import time

from orders_pipeline.infrastructure.database import Database

MOST_S = 1.0


class ClockDiffers(Exception):
    """This host's clock and the database's differ by more than they may."""

    code = "E_CLOCK"


def require(database: Database) -> str:
    """Return how far both clocks differ at least, whatever the way to the database takes; raise ClockDiffers."""
    with database.begin() as transaction:
        transaction.scalar("seconds_now")  # so that no connection is opened between the two looks
        before = time.time()
        theirs = transaction.scalar("seconds_now")
        after = time.time()
    differ_s = max(before - theirs, theirs - after, 0.0)
    if differ_s > MOST_S:
        raise ClockDiffers(f"this clock and the database's differ by {differ_s:.1f} s; let NTP set both")
    return f"differs from the database's by less than {differ_s + after - before:.3f} s"

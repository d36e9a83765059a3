"""What each client's files of a day came to, for who wants to see how clients develop."""

from typing import Any

import dagster as dg
from sqlalchemy import Row

from orders_pipeline.orchestration.assets.boundary import FINANCE, MONEY, safe_errors
from orders_pipeline.orchestration.table_schemas import table
from orders_pipeline.system.composition import System

FIRST_DAY = "2026-11-01"  # no installation is older
MOST_PLOTTED = 20  # clients: Dagster draws a hundred plots at most
PLOTTED = {"rows": "rows", "rows rejected": "rows_rejected", "yen paid": "amount_paid"}

days = dg.DailyPartitionsDefinition(FIRST_DAY, timezone="Asia/Tokyo", end_offset=1)  # with today, as far as it is


@dg.asset(partitions_def=days, group_name=MONEY, owners=FINANCE, kinds={"postgres"})
def client_day(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """The files, rows and yen of each client on one day in Japan, by when its files came.

    *Plots* shows them day by day, for the clients with the most yen. A day is counted in the night that follows it; to see
    today so far, or a day anew, materialize it.
    """
    with safe_errors(system):
        window = context.partition_time_window
        with system.database.begin() as transaction:
            clients = transaction.rows("client_days", since=window.start, until=window.end)
    return dg.MaterializeResult(
        metadata={
            "clients": len(clients),
            "files": sum(each.files for each in clients),
            "yen paid": int(sum(each.amount_paid for each in clients)),
            **({"by client": table([_row(each) for each in clients])} if clients else {}),
            **{
                f"{each.client_code}: {name}": int(getattr(each, column))
                for each in clients[:MOST_PLOTTED]
                for name, column in PLOTTED.items()
            },
        }
    )


def _row(client: Row[Any]) -> dict[str, str]:
    columns = {
        "files": client.files,
        "refused": client.files_rejected,
        "rows": client.rows,
        "rejected": client.rows_rejected,
    }
    columns |= {"paid": client.amount_paid, "declined": client.amount_declined, "open": client.amount_open}
    return {"client": client.client_code} | {name: f"{value:,}" for name, value in columns.items()}

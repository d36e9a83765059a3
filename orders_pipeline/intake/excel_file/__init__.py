"""A client's workbook, which becomes a CSV file: checked (`package`), read (`stored_cells`), as shown (`shown_cells`).

What the CSV file is worth is decided in `csv_file` and behind it, as for any other.
"""

from orders_pipeline.intake.excel_file.conversion import write_csv
from orders_pipeline.intake.excel_file.sheets import OrderSheet

__all__ = ["OrderSheet", "write_csv"]

"""A client's workbook, which becomes a CSV file: opened within bounds (`package`), read (`cells`), as shown (`formats`).

What the CSV file is worth is decided in `csv_file` and behind it, as for any other.
"""

from orders_pipeline.intake.excel_file.reading import OrderSheet, write_csv

__all__ = ["OrderSheet", "write_csv"]

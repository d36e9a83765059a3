"""Intake: from a file in the landing to loaded orders or an error report: `landing`, then the `steps` of a batch.

How files are read is in `csv_file/` and `excel_file/`, what rows are worth in `records/`, what follows in `settlement/`.
"""

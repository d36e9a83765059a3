"""The batch API over HTTP: clients' programs send order files and read what became of them.

Requests are read, use cases called, answers written; what a use case does belongs in the wings below. No Dagster here:
runs are started by its sensors, or by its own web server when that is asked (`run_hint.py`).
"""

"""Orchestration: Dagster, and only here: assets, checks, jobs, sensors, schedules, partitions, and how runs are launched.

Nothing is decided here about files, orders or money: assets call `intake/`, `settlement/`, `reports/` and `upkeep/`.
"""

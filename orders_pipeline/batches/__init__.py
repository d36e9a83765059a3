"""Batches: a file of orders and where it stands: its states, ids and counts, its files' names, and which workers it has.

What is done to a batch belongs in `intake/` and `settlement/`; what is shown of it in `reports/`.
"""

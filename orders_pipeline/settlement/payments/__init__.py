"""Payments: which orders are paid together (`plan`), claims and results (`ledger`), sending and looking up (`settle`).

The Payment service's words are known in `services/rest_payments.py` only.
"""

"""Payments: what orders are paid together (`plan`), and how each is sent, looked up and written down (`settle`).

The Payment service's words are known in `services/rest_payments.py` only.
"""

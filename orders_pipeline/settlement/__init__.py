"""Settlement: a loaded batch to its end: payments, notifications and refunds planned, sent, looked up and reconciled.

How the services are spoken to is in `services/`; what a batch is, in `batches/`.
"""

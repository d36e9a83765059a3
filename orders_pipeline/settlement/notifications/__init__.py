"""Notifications: who is notified of what (`plan`), when it is final and may be sent (`ledger`), and sending it (`notify`).

What the service's answers mean belongs in `services/notification_service.py`, its tokens in `services/rate_limit.py`.
"""

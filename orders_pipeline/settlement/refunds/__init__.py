"""Refunds: chosen and shown (`plan`), sent and recorded (`ledger`), carried out with their corrections (`refunding`).

What a provider makes of a refund belongs in the provider's module below `settlement/payments/`.
"""

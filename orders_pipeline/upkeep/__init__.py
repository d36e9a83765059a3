"""Upkeep: what is done by the clock or by hand, not by a batch's run: retention, replaced keys, cancelled batches, webhooks.

When it happens is a matter of `orchestration/` and `cli/`.
"""

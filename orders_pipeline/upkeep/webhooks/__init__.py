"""Webhooks: clients' own servers are told of their batches and refunds, signed after Standard Webhooks.

What is to be told is planned by the database, with the change that it is about. Here it is sent and recorded (`sending`),
signed (`message`) and kept from addresses that are nobody's to call (`addresses`); `overview` is for the operator.
"""

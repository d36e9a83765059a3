"""Audit shipping: sealed audit records are sent to a system outside, where who writes to our database has no say.

What is sent and how far that is, is in `shipping`; what a document is, in `documents`. Where it goes is a `sink`:
CloudWatch Logs (`cloudwatch`), or Elasticsearch and OpenSearch (`bulk_index`).
"""

"""The audit: who changed or read what, and when; sealed in blocks, verified, and exported for other systems.

Changes of rows are written down by the database itself (V2__audit.sql). `recording` adds what no row shows, `records` is
what a record looks like, `sealing` makes blocks and anchors their heads, `verifying` looks for what was altered,
`exporting` gives records out.
"""

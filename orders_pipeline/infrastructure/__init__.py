"""Infrastructure: PostgreSQL, the storage of files, Parquet, scratch files and signals, each behind a small interface.

Nothing here knows what a batch, an order or a client is; statements mean something in the modules that call them.
"""

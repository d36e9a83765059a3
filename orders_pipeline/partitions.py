"""The partition of every asset: one batch, added when its file arrives. Nothing else is a partition, a row never is."""

import dagster as dg

batch_partitions = dg.DynamicPartitionsDefinition(name="batch_id")

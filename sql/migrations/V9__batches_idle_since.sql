-- Since when nobody works on an unfinished batch, as far as was looked: what a host that vanished leaves behind.

ALTER TABLE batches ADD idle_since timestamptz;

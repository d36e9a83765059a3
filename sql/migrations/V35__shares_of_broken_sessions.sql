-- Since when a worker is not to be seen, as others first noticed: its calls may still be under way for a while.
ALTER TABLE service_shares ADD COLUMN unseen_since timestamptz;

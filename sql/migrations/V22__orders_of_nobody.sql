-- An order whose customer is what the client's profile gives to an empty cell is paid and told of by itself: nobody knows
-- whether two of them are one person's.

ALTER TABLE orders ADD is_nobodys boolean NOT NULL DEFAULT false;

SELECT audit_watch('orders', 'phi_modification', '{csv_source}', bulk => true, moving => '{status,status_changed_at}');

-- A notification keeps the times that payments and refunds do: when it was last sent, and when it was settled.

ALTER TABLE notifications ADD COLUMN settled_at timestamptz;
UPDATE notifications SET settled_at = coalesce(sent_at, now()) WHERE status IN ('sent', 'failed', 'cancelled');
UPDATE notifications SET sent_at = now() WHERE status IN ('sending', 'unknown');
ALTER TABLE notifications
    ADD CONSTRAINT notifications_settled_has_time CHECK
        ((status IN ('sent', 'failed', 'cancelled')) = (settled_at IS NOT NULL)),
    ADD CONSTRAINT notifications_settled_is_unclaimed CHECK (settled_at IS NULL OR claimed_by IS NULL);
COMMENT ON COLUMN notifications.sent_at IS 'When it was last sent, or claimed to be; null: never.';
COMMENT ON COLUMN notifications.settled_at IS 'When its last word was written down; null: it is open.';
SELECT audit_watch('notifications', 'phi_modification');

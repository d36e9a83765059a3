-- What may have been charged is claimed by index, too, among however many that were only planned.

CREATE INDEX payments_first_look_ups ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status = 'unknown';
CREATE INDEX payments_later_look_ups ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status = 'unknown';

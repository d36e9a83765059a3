-- Resolutions: what a person decided about a payment that no look-up could settle, who it was and why.

CREATE TABLE resolutions (
    resolution_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT resolutions_pkey PRIMARY KEY,
    payment_id    uuid NOT NULL CONSTRAINT resolutions_payment_id_fkey REFERENCES payments,
    decision      text COLLATE "C" NOT NULL CONSTRAINT resolutions_decision_known CHECK (decision IN ('paid', 'not_paid')),
    decided_by    text NOT NULL CONSTRAINT resolutions_decided_by_given CHECK (decided_by <> ''),
    reason        text NOT NULL CONSTRAINT resolutions_reason_given CHECK (reason <> ''),
    decided_at    timestamptz NOT NULL DEFAULT now()
);

-- What the model said when a loan was recorded, which version said it, and when the loan's end became known.
ALTER TABLE loans
    ADD COLUMN predicted double precision CHECK (predicted BETWEEN 0 AND 1),
    ADD COLUMN predicted_by integer,
    ADD COLUMN outcome_at timestamptz,
    ADD CHECK ((predicted IS NULL) = (predicted_by IS NULL));

-- The latest predictions that can be judged, and the latest loans, without reading the rest.
CREATE INDEX loans_judged ON loans (outcome_at DESC) WHERE predicted IS NOT NULL AND "default" IS NOT NULL;
CREATE INDEX loans_predicted ON loans (recorded_at DESC) WHERE predicted IS NOT NULL;

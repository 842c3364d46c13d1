-- Every model that ever was in use, with what it was judged by. The numbers stay as they were written: json, not jsonb.
CREATE TABLE model_versions (
    version integer PRIMARY KEY CHECK (version > 0),
    trained json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The one in use: no row or one.
CREATE TABLE model_in_use (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL REFERENCES model_versions
);

-- On which side of the split a loan stands. Decided once, so that no model is judged by a row it was trained on.
CREATE TABLE loan_sides (
    loan_id text PRIMARY KEY REFERENCES loans ON DELETE CASCADE,
    "default" boolean NOT NULL,
    held_out boolean NOT NULL
);

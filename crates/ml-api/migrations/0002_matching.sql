-- The matching book. A request or an offer is open until it has a match or expires; terms are in the token's base unit,
-- basis points and seconds.
CREATE TABLE loan_requests (
    loan_id text PRIMARY KEY,
    borrower text NOT NULL,
    token_type text NOT NULL,
    amount numeric(78, 0) NOT NULL CHECK (amount > 0),
    max_interest_rate integer NOT NULL CHECK (max_interest_rate >= 0),
    duration bigint NOT NULL CHECK (duration > 0),
    risk_score double precision NOT NULL CHECK (risk_score BETWEEN 0 AND 1000),
    match_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '24 hours'
);
CREATE INDEX loan_requests_open ON loan_requests (risk_score, created_at, loan_id) WHERE match_id IS NULL;

CREATE TABLE lending_offers (
    offer_id text PRIMARY KEY,
    lender text NOT NULL,
    token_type text NOT NULL,
    amount numeric(78, 0) NOT NULL CHECK (amount > 0),
    min_interest_rate integer NOT NULL CHECK (min_interest_rate >= 0),
    max_interest_rate integer NOT NULL CHECK (max_interest_rate >= min_interest_rate),
    min_duration bigint NOT NULL CHECK (min_duration >= 0),
    max_duration bigint NOT NULL CHECK (max_duration >= min_duration),
    match_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '24 hours'
);
CREATE INDEX lending_offers_open ON lending_offers (created_at, offer_id) WHERE match_id IS NULL;

-- That each side stands in one match at most is held here, whatever a program does.
CREATE TABLE matches (
    match_id text PRIMARY KEY,
    loan_id text NOT NULL UNIQUE REFERENCES loan_requests,
    offer_id text NOT NULL UNIQUE REFERENCES lending_offers,
    interest_rate integer CHECK (interest_rate >= 0),
    matched_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX matches_recent ON matches (matched_at DESC);

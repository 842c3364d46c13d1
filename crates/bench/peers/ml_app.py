"""The same service in Flask, scikit-learn and SQLAlchemy: gunicorn -w 2 ml_app:app.

The model is a scikit-learn pipeline, made once from ml-api's own (ml_model.py) and loaded from MODEL; DATABASE_URL is the database.
"""

import math
import os

import joblib
import numpy as np
from flask import Flask, jsonify, request
from sqlalchemy import Boolean, Column, DateTime, Float, MetaData, String, Table, create_engine, func
from sqlalchemy.dialects.postgresql import JSONB, insert

FEATURES = (
    "tx_count total_volume avg_frequency avg_time_between stablecoin_ratio avg_holding_period volatility_index "
    "diversity_score total_loans repaid_loans defaulted_loans avg_repayment_time protocol_count "
    "yield_farming_activity smart_contract_calls defi_experience loan_amount collateral_amount "
    "loan_to_collateral_ratio duration_days interest_rate account_age_days"
).split()
OTHERS = ("borrower_address", "lender_address", "timestamp", "loan_status", "default", "actual_repayment_time")

app = Flask(__name__)
model = joblib.load(os.environ["MODEL"])
engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg2://", 1),
    pool_size=10,
    max_overflow=20,
    pool_timeout=30,
    pool_recycle=3600,
    pool_pre_ping=True,
    # BEGIN and COMMIT around a single statement would be two more round trips.
    isolation_level="AUTOCOMMIT",
)
loans = Table(
    "peer_loans",
    MetaData(),
    Column("loan_id", String, primary_key=True),
    *(Column(name, Float) for name in FEATURES),
    Column("borrower_address", String),
    Column("lender_address", String),
    Column("timestamp", DateTime(timezone=True)),
    Column("loan_status", String),
    Column("default", Boolean),
    Column("actual_repayment_time", Float),
    Column("metadata", JSONB, nullable=False),
    Column("recorded_at", DateTime(timezone=True), server_default=func.now()),
)


def upsert_of(statement):
    """What is not given stays. Built once: SQLAlchemy then compiles it once."""
    kept = {name: func.coalesce(statement.excluded[name], loans.c[name]) for name in (*FEATURES, *OTHERS)}
    merged = loans.c.metadata + statement.excluded.metadata
    return statement.on_conflict_do_update(index_elements=["loan_id"], set_={**kept, "metadata": merged})


upsert = upsert_of(insert(loans))


def row_of(loan):
    """The features in order and the absent ones; whoever sends something else is told."""
    if not isinstance(loan, dict):
        raise ValueError("a loan must be an object")
    row = []
    for name in FEATURES:
        value = loan.get(name, 0.0)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{name}: must be a finite number")
        row.append(value)
    return row, [name for name in FEATURES if name not in loan]


def prediction_of(probability):
    category = (
        "Low" if probability <= 0.2 else "Medium" if probability <= 0.5 else "High" if probability <= 0.7 else "Very High"
    )
    return {
        "default_prediction": int(probability >= 0.5),
        "default_probability": probability,
        "risk_score": round(1000 * probability),
        "risk_category": category,
    }


@app.post("/predict")
def predict():
    try:
        row, missing = row_of(request.get_json())
    except ValueError as error:
        return jsonify(error=str(error)), 422
    probability = float(model.predict_proba(np.array([row]))[0, 1])
    return jsonify(
        success=True, prediction=prediction_of(probability), model="logistic_regression", missing_features=missing
    )


@app.post("/predict/batch")
def predict_batch():
    answers, rows, places = [], [], []
    for loan in request.get_json()["loans"]:
        try:
            row, missing = row_of(loan)
        except ValueError as error:
            answers.append({"success": False, "error": str(error)})
            continue
        places.append(len(answers))
        rows.append(row)
        answers.append({"success": True, "missing_features": missing})
    if rows:
        probabilities = model.predict_proba(np.array(rows))[:, 1].tolist()
        for place, probability in zip(places, probabilities):
            answers[place].update(prediction_of(probability))
    return jsonify(success=True, predictions=answers, count=len(answers), model="logistic_regression")


@app.post("/data/record")
def record():
    body = request.get_json()
    try:
        row_of(body)
    except ValueError as error:
        return jsonify(error=str(error)), 422
    known = {name: body.pop(name, None) for name in (*FEATURES, *OTHERS)}
    loan_id = str(body.pop("loan_id"))
    with engine.connect() as connection:
        connection.execute(upsert, {"loan_id": loan_id, "metadata": body, **known})
    return jsonify(success=True, message="loan recorded", loan_id=loan_id)

"""Work of scikit-learn alone. One JSON request per line, one JSON answer per line.

{"do": "model", "from": MODEL.json, "to": FILE, "database": URL} -> {}    a pipeline with ml-api's own numbers; the peer's table
{"do": "load", "data": FILE.csv}                       -> {"rows"}
{"do": "fit", "solver", "tolerance"}                   -> {"seconds", "intercept", "coefficients"}
"""

import json
import os
import sys
import time

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = {}


def classifier(solver="lbfgs", tolerance=1e-4):
    return LogisticRegression(C=1, class_weight="balanced", solver=solver, tol=tolerance, max_iter=1000)


def make_model(request):
    with open(request["from"]) as file:
        stored = json.load(file)
    names = list(stored["coefficients"])
    scaler, regression = StandardScaler(), classifier()
    scaler.mean_ = np.array([stored["means"][name] for name in names])
    scaler.scale_ = np.array([stored["deviations"][name] for name in names])
    scaler.n_features_in_ = len(names)
    regression.coef_ = np.array([[stored["coefficients"][name] for name in names]])
    regression.intercept_ = np.array([stored["intercept"]])
    regression.classes_ = np.array([0, 1])
    regression.n_features_in_ = len(names)
    joblib.dump(make_pipeline(scaler, regression), request["to"])
    os.environ.update(MODEL=request["to"], DATABASE_URL=request["database"])
    import ml_app

    ml_app.loans.metadata.create_all(ml_app.engine)
    ml_app.engine.dispose()
    return {}


def load(request):
    columns = np.loadtxt(request["data"], delimiter=",", skiprows=1, usecols=range(23))
    data["x"], data["y"] = np.ascontiguousarray(columns[:, :22]), columns[:, 22].astype(int)
    return {"rows": len(columns)}


def fit(request):
    started = time.perf_counter()
    scaler = StandardScaler()
    model = classifier(request["solver"], request["tolerance"]).fit(scaler.fit_transform(data["x"]), data["y"])
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "intercept": float(model.intercept_[0]), "coefficients": model.coef_[0].tolist()}


def answer(request):
    try:
        return {"model": make_model, "load": load, "fit": fit}[request["do"]](request)
    except Exception as error:  # Told to the benchmark, whatever it is.
        return {"error": f"{type(error).__name__}: {error}"}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)

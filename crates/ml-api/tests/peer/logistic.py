"""Makes the golden files of the model's tests, and compares a model with scikit-learn's.

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install scikit-learn numpy
    /tmp/peer/bin/python logistic.py golden ../golden      # writes NAME.csv and NAME.json
    /tmp/peer/bin/python logistic.py compare LOANS.csv MODEL.json

The data sets are numpy's own draws, so they share nothing with the service's generator. The golden JSON holds
scikit-learn's optimum (tolerance 1e-12; the largest gradient component per row is printed).
"""

import json
import sys
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

FEATURES = (
    "tx_count total_volume avg_frequency avg_time_between stablecoin_ratio avg_holding_period volatility_index "
    "diversity_score total_loans repaid_loans defaulted_loans avg_repayment_time protocol_count "
    "yield_farming_activity smart_contract_calls defi_experience loan_amount collateral_amount "
    "loan_to_collateral_ratio duration_days interest_rate account_age_days"
).split()


def optimum(x, y):
    """Means, deviations, coefficients and intercept by feature, as the service's model holds them."""
    scaler = StandardScaler().fit(x)
    z = scaler.transform(x)
    fit = LogisticRegression(C=1, class_weight="balanced", solver="newton-cholesky", tol=1e-12, max_iter=1000)
    fit.fit(z, y)
    w, b = fit.coef_[0], fit.intercept_[0]
    weights = np.where(y == 1, len(y) / (2 * y.sum()), len(y) / (2 * (1 - y).sum()))
    residual = weights * (1 / (1 + np.exp(-(z @ w + b))) - y)
    steepest = max(np.abs(z.T @ residual + w).max(), abs(residual.sum())) / len(y)
    print(f"scikit-learn {sklearn.__version__}: {len(y)} rows, {y.sum()} defaults, gradient {steepest:.1e} per row")
    by_feature = lambda values: dict(zip(FEATURES, map(float, values)))
    return {
        "coefficients": by_feature(w),
        "intercept": float(b),
        "means": by_feature(scaler.mean_),
        "deviations": by_feature(scaler.scale_),
    }


def draw(rng, rows, defaults, separation):
    """Correlated columns on very different scales; the labels have an exact count."""
    latent = rng.normal(size=(rows, 5))
    x = latent @ rng.normal(size=(5, 22)) + rng.normal(size=(rows, 22))
    risk = separation * x @ rng.normal(size=22) / 5 + rng.logistic(size=rows)
    y = np.zeros(rows, dtype=int)
    y[np.argsort(risk)[rows - defaults :]] = 1
    return x * 10.0 ** rng.integers(-3, 5, size=22) + 10.0 ** rng.integers(-2, 4, size=22), y


def data_sets():
    rng = np.random.default_rng(20)
    yield "plain", *draw(rng, 100, 30, 0.6)
    yield "imbalanced", *draw(rng, 126, 6, 0.6)
    x, y = draw(rng, 80, 30, 0.6)
    x[:, 9] = x[:, 8]  # The same column twice,
    x[:, 17] = 2 * x[:, 16]  # one that is a multiple,
    x[:, 18] = x[:, 0] + x[:, 1]  # one that is a sum,
    x[:, 12] = 7  # and a constant.
    yield "collinear", x, y
    x, y = draw(rng, 60, 20, 0.6)
    x[:, 3] += 1e3 * np.ptp(x[:, 3]) * y  # This column alone tells the classes apart.
    yield "separable", x, y


def read(path):
    header = path.open().readline().strip().split(",")
    columns = [header.index(name) for name in [*FEATURES, "default"]]
    table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=columns)
    return table[:, :-1], table[:, -1].astype(int)


def golden(folder):
    for name, x, y in data_sets():
        path = folder / f"{name}.csv"
        lines = [",".join([*(f"{v:.5g}" for v in row), str(label)]) for row, label in zip(x, y)]
        path.write_text("\n".join([",".join([*FEATURES, "default"]), *lines]) + "\n")
        (folder / f"{name}.json").write_text(json.dumps(optimum(*read(path)), indent=1) + "\n")


def compare(csv, model):
    ours, theirs = json.loads(model.read_text()), optimum(*read(csv))
    for key in ("coefficients", "means", "deviations"):
        worst = max(FEATURES, key=lambda name: abs(ours[key][name] - theirs[key][name]))
        print(f"{key}: largest difference {abs(ours[key][worst] - theirs[key][worst]):.1e} ({worst})")
    print(f"intercept: difference {abs(ours['intercept'] - theirs['intercept']):.1e}")


if __name__ == "__main__":
    {"golden": golden, "compare": compare}[sys.argv[1]](*map(Path, sys.argv[2:]))

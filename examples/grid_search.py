"""A scikit-learn grid search on upcall's workers: python examples/grid_search.py

The one line that differs from a usual program is `parallel_config(backend="upcall")`. One of the candidates kills the worker
that fits it, once: with `on_death="retry"` that costs its batch of fits a second try, and the search nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import upcall.joblib  # noqa: F401 (registers the backend)


class Fragile(LogisticRegression):
    """A model whose first fit with C=1 takes its process down."""

    def fit(self, X, y):
        if self.C == 1.0:
            try:
                os.close(os.open(os.environ["ONCE"], os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return super().fit(X, y)


def main() -> None:
    X, y = load_digits(return_X_y=True)
    search = GridSearchCV(Fragile(max_iter=2000, tol=0.01), {"C": [0.001, 0.01, 0.1, 1.0]}, cv=3)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONCE"] = f"{folder}/once"
        with joblib.parallel_config(backend="upcall", n_jobs=2, on_death="retry"):
            search.fit(X, y)
        killed = os.path.exists(os.environ["ONCE"])
    print(
        f"{len(search.cv_results_['params'])} candidates, 3 folds each; a worker was killed: {'yes' if killed else 'no'}"
    )
    print(f"best: {search.best_params_}, accuracy {search.best_score_:.3f}")


if __name__ == "__main__":
    sys.exit(main())

"""A linear model of scikit-learn on rows of a table."""

import os

import joblib
import numpy
import pyarrow

#: Of the table; a pandas DataFrame has them by the same names.
COLUMNS = [f"x{number}" for number in range(8)]


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))


def run(mini_batch: pyarrow.Table):
    return model.predict(numpy.column_stack([mini_batch[name] for name in COLUMNS]))

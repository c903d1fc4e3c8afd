"""A linear model of scikit-learn on rows of a table."""

import os

import joblib


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))


def run(mini_batch):
    return model.predict(mini_batch.to_numpy())

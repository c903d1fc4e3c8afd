"""Train a classifier of iris flowers, and save it as an MLflow model with its signature."""

import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

flowers, kinds = load_iris(return_X_y=True, as_frame=True)
kinds = kinds.map(dict(enumerate(load_iris().target_names)))
known, new, known_kinds, _ = train_test_split(flowers, kinds, test_size=100, random_state=0)
model = LogisticRegression(max_iter=1000).fit(known, known_kinds)
mlflow.sklearn.save_model(
    model, "iris", signature=infer_signature(known, model.predict(known)),
    pip_requirements=["scikit-learn", "pandas"],
)
new.to_csv("new-flowers.csv", index=False)
print("iris is the model, and new-flowers.csv holds flowers that it has never seen")

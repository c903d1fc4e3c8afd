"""The control plane: REST API, database, reconcile loop."""

"""The scoring contract: how a model and a script are loaded and called."""

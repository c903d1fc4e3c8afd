"""The models on each server, by its own means; imported in that server's environment only."""

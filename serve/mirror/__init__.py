"""Copies of live requests to other deployments, and the pairs of answers that they give."""

"""The scoring scripts that are measured: the same file in every contender."""

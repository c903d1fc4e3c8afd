"""Tables: how large CSV, JSON Lines and Parquet files are cut by rows, and how slices are read."""

"""Online endpoints; so far the inference server, as a process of its own."""

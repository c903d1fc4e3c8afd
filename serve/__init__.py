"""Online endpoints; nothing is here yet."""

"""A batch invocation as a Ray job: its folder, its states, its entry point."""

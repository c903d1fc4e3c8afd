"""What users declare, and how it is scored: resources, storage, scoring contract, batch engine."""

"""The command line, with Azure's verbs and flags."""

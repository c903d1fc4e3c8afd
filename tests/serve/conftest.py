from __future__ import annotations

import pytest


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch, clean_modules: None) -> None:
    """Undo what hosting a script in this process does to it."""
    for name in ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR"):
        monkeypatch.setenv(name, "")   # put back as it was

"""Where a workspace lies and which ports it opens: the one place that says so.

A workspace is a folder (`INFERAY_HOME`, by default `~/.inferay`). Everything that must survive a
restart is in it. Environment variables win over the defaults here; nothing is read at import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Port of everything: scoring URIs, the REST API and the studio, behind the edge.
PUBLIC_PORT = 8743

#: Port of local mode's scoring URIs, unless it is taken.
LOCAL_PORT = 8744

#: Host that the public port binds to. Beyond loopback only by an explicit `up --host`.
PUBLIC_HOST = "127.0.0.1"

#: Azure's names of the two datastores that every workspace has.
BLOB_DATASTORE = "workspaceblobstore"
ARTIFACT_DATASTORE = "workspaceartifactstore"

#: Variable that allows http(s) URIs of users to reach addresses that are not public.
ALLOW_VARIABLE = "INFERAY_ALLOW_PRIVATE_ADDRESSES"


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one workspace; making the value touches no disk.

    Attributes:
        home: The workspace's folder, absolute.
    """

    home: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Workspace:
        """Return the workspace that `INFERAY_HOME` names, by default `~/.inferay`."""
        environ = os.environ if environ is None else environ
        home = environ.get("INFERAY_HOME") or "~/.inferay"
        return cls(Path(os.path.abspath(os.path.expanduser(home))))

    @property
    def database(self) -> Path:
        """SQLite file of the control plane."""
        return self.home / "control.db"

    @property
    def secrets(self) -> Path:
        """Folder (0700) of tokens and private keys (0600)."""
        return self.home / "secrets"

    @property
    def admin_token(self) -> Path:
        """File with the token of role admin that the CLI and the client find by themselves."""
        return self.secrets / "admin_token"

    @property
    def ray_token(self) -> Path:
        """File with the token that every Ray process of this workspace authenticates with."""
        return self.secrets / "ray_token"

    @property
    def edge_secret(self) -> Path:
        """File with what the control plane authenticates with at the edge."""
        return self.secrets / "edge_secret"

    @property
    def registration_key(self) -> Path:
        """File with the key that the credentials of replicas are made with."""
        return self.secrets / "registration_key"

    @property
    def token_key(self) -> Path:
        """File with the key that the tokens of online endpoints are signed with."""
        return self.secrets / "token_key"

    @property
    def storage_key(self) -> Path:
        """File with the key that the credentials of datastores are encrypted with."""
        return self.secrets / "storage_key"

    def access_file(self, job_name: str) -> Path:
        """Return where a job's driver finds the credentials of the datastores that it uses."""
        return self.secrets / "access" / f"{job_name}.json"

    @property
    def ca_certificate(self) -> Path:
        """Certificate of the local CA: what a client has to trust."""
        return self.home / "tls" / "ca.pem"

    @property
    def tls(self) -> Path:
        """Folder of the local CA and the server's certificate."""
        return self.home / "tls"

    @property
    def run(self) -> Path:
        """Folder of what is true only while something runs: processes, addresses, locks."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """Folder of the logs of the processes that `inferay up` starts."""
        return self.home / "logs"

    @property
    def edge(self) -> Path:
        """Folder of what the edge has to know again after a restart."""
        return self.home / "edge"

    @property
    def datastores(self) -> Path:
        """Folder that holds the two default datastores."""
        return self.home / "datastores"

    @property
    def assets(self) -> Path:
        """Folder of content-addressed code and model snapshots."""
        return self.home / "assets"

    @property
    def mlflow(self) -> Path:
        """Folder of MLflow's store: the registry of models, and the runs of jobs."""
        return self.home / "mlflow"

    def online_logs(self, endpoint: str, deployment: str) -> Path:
        """Return where an online deployment's logs lie: `REVISION/REPLICA.log`."""
        return self.logs / "online" / endpoint / deployment

    def pairs_folder(self, endpoint: str) -> Path:
        """Return where answers of live requests are kept beside those of their copies."""
        return self.home / "pairs" / endpoint

    def job_folder(self, job_name: str) -> Path:
        """Return where a job's work (manifest, journal, segments) and logs lie.

        The place is Azure's: `ExperimentRun/dcid.<job>` of `workspaceartifactstore`.
        """
        return self.datastores / ARTIFACT_DATASTORE / "ExperimentRun" / f"dcid.{job_name}"

    def output_folder(self, job_name: str) -> Path:
        """Return a job's default output: `azureml/<job>/score` of `workspaceblobstore`."""
        return self.datastores / BLOB_DATASTORE / "azureml" / job_name / "score"

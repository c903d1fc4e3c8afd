"""`batch-endpoint` and `batch-deployment`."""

from __future__ import annotations

import argparse
from typing import Any

from inferay.cli.connection import connect
from inferay.cli.parser import (
    Groups,
    add_file,
    add_no_wait,
    add_set,
    add_yes,
    confirm,
    warn,
)
from inferay.errors import InvalidInput


def add(groups: Groups) -> None:
    """Add the commands."""
    endpoint = groups.group("batch-endpoint", "stable names that batch jobs are started at")
    create = endpoint.command("create", _create_endpoint, "create (or replace) an endpoint")
    update = endpoint.command("update", _update_endpoint, "change an endpoint")
    for command in (create, update):
        add_file(command)
        command.add_argument("-n", "--name")
        add_no_wait(command)
    update.add_argument("--defaults", metavar="deployment_name=NAME")
    for name, run, help_text in (
        ("show", _show_endpoint, "show an endpoint"),
        ("list-jobs", _list_endpoint_jobs, "list an endpoint's jobs, newest first"),
    ):
        endpoint.command(name, run, help_text).add_argument("-n", "--name", required=True)
    endpoint.command("list", _list_endpoints, "list endpoints")
    delete = endpoint.command("delete", _delete_endpoint, "delete an endpoint and its deployments")
    delete.add_argument("-n", "--name", required=True)
    add_no_wait(delete)
    add_yes(delete)
    _add_invoke(endpoint.command("invoke", _invoke, "start a batch job"))

    deployment = groups.group("batch-deployment", "what batch jobs of an endpoint run")
    create = deployment.command("create", _create_deployment, "create (or replace) a deployment")
    update = deployment.command("update", _update_deployment, "change a deployment")
    add_file(create, is_required=True)
    add_file(update)
    for command in (create, update):
        command.add_argument("-n", "--name")
        command.add_argument("-e", "--endpoint-name")
        command.add_argument("--skip-script-validation", action="store_true")
        add_no_wait(command)
    create.add_argument("--set-default", action="store_true",
                        help="make it the endpoint's default")
    for name, run, help_text in (
        ("show", _show_deployment, "show a deployment"),
        ("list-jobs", _list_deployment_jobs, "list a deployment's jobs, newest first"),
        ("delete", _delete_deployment, "delete a deployment"),
    ):
        command = deployment.command(name, run, help_text)
        command.add_argument("-n", "--name", required=True)
        command.add_argument("-e", "--endpoint-name", required=True)
        if name == "delete":
            add_no_wait(command)
            add_yes(command)
    listing = deployment.command("list", _list_deployments, "list an endpoint's deployments")
    listing.add_argument("-e", "--endpoint-name", required=True)


def _add_invoke(parser: Any) -> None:
    parser.add_argument("-n", "--name", required=True)
    parser.add_argument("--input", required=True,
                        help="a file, a folder, azureml:DATA:VERSION or azureml://…")
    parser.add_argument("--input-type", choices=["uri_file", "uri_folder"])
    parser.add_argument("-d", "--deployment-name")
    parser.add_argument("--output-path", help="a folder, or azureml://datastores/…")
    parser.add_argument("--job-name")
    parser.add_argument("-m", "--mini-batch-size", type=_mini_batch_size,
                        help="files (10), bytes (64MB) or rows ('5000 rows')")
    parser.add_argument("-c", "--instance-count", type=int)
    add_set(parser)


def _mini_batch_size(text: str) -> int | str:
    return int(text) if text.strip().isdecimal() else text


def _create_endpoint(options: argparse.Namespace) -> Any:
    from inferay.engine.resources import BatchEndpoint, load

    loaded = load(BatchEndpoint, options.file, options.set, name=options.name)
    warn(options, loaded.warnings)
    endpoints = connect(options).batch_endpoints
    endpoint = endpoints.create_or_update(loaded.entity, wait=not options.no_wait)
    return endpoint.to_dict()


def _update_endpoint(options: argparse.Namespace) -> Any:
    from inferay.engine.resources import BatchEndpoint, load

    client = connect(options)
    base, flags = None, {"name": options.name}
    if options.file is None:
        if options.name is None:
            raise InvalidInput("batch-endpoint update: give --name or --file")
        base = client.batch_endpoints.get(options.name)
    if options.defaults is not None:
        key, _, value = options.defaults.partition("=")
        if key != "deployment_name" or not value:
            raise InvalidInput(
                f"--defaults: expected deployment_name=NAME, got '{options.defaults}'"
            )
        flags["defaults.deployment_name"] = value
    loaded = load(BatchEndpoint, options.file, options.set, flags, base=base)
    warn(options, loaded.warnings)
    client.batch_endpoints.get(loaded.entity.name)
    endpoint = client.batch_endpoints.create_or_update(loaded.entity, wait=not options.no_wait)
    return endpoint.to_dict()


def _show_endpoint(options: argparse.Namespace) -> Any:
    return connect(options).batch_endpoints.get(options.name).to_dict()


def _list_endpoints(options: argparse.Namespace) -> Any:
    return [endpoint.to_dict() for endpoint in connect(options).batch_endpoints.list()]


def _delete_endpoint(options: argparse.Namespace) -> None:
    client = connect(options)
    client.batch_endpoints.get(options.name)
    confirm(options, f"batch endpoint '{options.name}' and its deployments")
    client.batch_endpoints.delete(options.name, wait=not options.no_wait)


def _list_endpoint_jobs(options: argparse.Namespace) -> Any:
    return [job.to_dict() for job in connect(options).batch_endpoints.list_jobs(options.name)]


def _invoke(options: argparse.Namespace) -> Any:
    from inferay.cli.output import show
    from inferay.client.overrides import job_settings

    job = connect(options).batch_endpoints.invoke(
        options.name, input=options.input, input_type=options.input_type,
        output_path=options.output_path, deployment_name=options.deployment_name,
        job_name=options.job_name, mini_batch_size=options.mini_batch_size,
        instance_count=options.instance_count, settings=job_settings(options.set),
    )
    warn(options, job.notices)
    if job.is_final and job.error is not None:   # it failed at once, such as with no input
        show(job.to_dict(), options.output, options.query)
        job.raise_for_status()
    return job.to_dict()


def _create_deployment(options: argparse.Namespace) -> Any:
    from inferay.engine.resources import BatchDeployment, load

    loaded = load(
        BatchDeployment, options.file, options.set, name=options.name,
        endpoint_name=options.endpoint_name,
        skip_script_validation=options.skip_script_validation,
    )
    warn(options, loaded.warnings)
    return _put_deployment(options, loaded.entity, set_default=options.set_default)


def _update_deployment(options: argparse.Namespace) -> Any:
    from inferay.engine.resources import BatchDeployment, load

    base = None
    client = connect(options)
    if options.file is None:
        if options.name is None or options.endpoint_name is None:
            raise InvalidInput(
                "batch-deployment update: give --name and --endpoint-name, or --file"
            )
        base = client.batch_deployments.get(options.name, options.endpoint_name)
    loaded = load(
        BatchDeployment, options.file, options.set, name=options.name, base=base,
        endpoint_name=options.endpoint_name,
        skip_script_validation=options.skip_script_validation,
    )
    warn(options, loaded.warnings)
    if loaded.entity.endpoint_name is not None:
        client.batch_deployments.get(loaded.entity.name, loaded.entity.endpoint_name)
    return _put_deployment(options, loaded.entity, set_default=False)


def _put_deployment(options: argparse.Namespace, entity: Any, *, set_default: bool) -> Any:
    deployment = connect(options).batch_deployments.create_or_update(
        entity, set_default=set_default, wait=not options.no_wait,
        skip_script_validation=options.skip_script_validation,
    )
    warn(options, deployment.warnings)
    return deployment.to_dict()


def _show_deployment(options: argparse.Namespace) -> Any:
    return connect(options).batch_deployments.get(options.name, options.endpoint_name).to_dict()


def _list_deployments(options: argparse.Namespace) -> Any:
    found = connect(options).batch_deployments.list(options.endpoint_name)
    return [deployment.to_dict() for deployment in found]


def _delete_deployment(options: argparse.Namespace) -> None:
    client = connect(options)
    client.batch_deployments.get(options.name, options.endpoint_name)
    confirm(options, f"deployment '{options.name}' of '{options.endpoint_name}'")
    client.batch_deployments.delete(
        options.name, options.endpoint_name, wait=not options.no_wait
    )


def _list_deployment_jobs(options: argparse.Namespace) -> Any:
    found = connect(options).batch_deployments.list_jobs(options.name, options.endpoint_name)
    return [job.to_dict() for job in found]

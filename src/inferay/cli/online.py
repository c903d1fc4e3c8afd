"""`online-endpoint` and `online-deployment`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferay.cli.connection import connect, connect_online
from inferay.cli.parser import (
    Groups,
    Parser,
    add_file,
    add_no_wait,
    add_yes,
    confirm,
    warn,
)
from inferay.errors import InvalidInput, nearest

_SHARE = re.compile(r"([^=]+)=([0-9]{1,3})%?")

#: Azure's default for `get-logs`.
LINES = 5000


def add(groups: Groups) -> None:
    """Add the commands."""
    _add_endpoint(groups)
    _add_deployment(groups)


def _add_endpoint(groups: Groups) -> None:
    endpoint = groups.group("online-endpoint", "stable scoring URIs, with keys and traffic rules")
    create = endpoint.command("create", _create_endpoint, "create (or replace) an endpoint")
    update = endpoint.command("update", _update_endpoint, "change an endpoint or its traffic")
    for command in (create, update):
        add_file(command)
        command.add_argument("-n", "--name")
        add_no_wait(command)
        _add_local(command)
        _add_switch(command, "--web", argparse.SUPPRESS)
    create.add_argument("--auth-mode", help="key, aml_token or aad_token (key)")
    update.add_argument("-r", "--traffic", nargs="+", metavar="NAME=PERCENT",
                        help="who gets requests, such as \"blue=90 green=10\"")
    update.add_argument("--mirror-traffic", nargs="+", metavar="NAME=PERCENT",
                        help="who gets copies of requests, such as \"green=10\"")
    show = endpoint.command("show", _show_endpoint, "show an endpoint")
    show.add_argument("-n", "--name", required=True)
    _add_local(show)
    _add_local(endpoint.command("list", _list_endpoints, "list endpoints"))
    delete = endpoint.command("delete", _delete_endpoint, "delete an endpoint and its deployments")
    delete.add_argument("-n", "--name", required=True)
    add_no_wait(delete)
    add_yes(delete)
    _add_local(delete)
    invoke = endpoint.command("invoke", _invoke, "score one request, and print the answer")
    invoke.add_argument("-n", "--name", required=True)
    invoke.add_argument("-r", "--request-file", required=True,
                        help="file with the body; - for standard input")
    invoke.add_argument("-d", "--deployment-name", help="instead of who the traffic rule says")
    _add_local(invoke)
    credentials = endpoint.command("get-credentials", _get_credentials,
                                   "show the keys, or a token")
    credentials.add_argument("-n", "--name", required=True)
    _add_local(credentials)
    keys = endpoint.command("regenerate-keys", _regenerate_keys,
                            "replace a key; the other one goes on")
    keys.add_argument("-n", "--name", required=True)
    keys.add_argument("--key-type", choices=["primary", "secondary"], default="primary")
    add_no_wait(keys)
    add_yes(keys)
    _add_local(keys)
    report = endpoint.command("shadow-report", _shadow_report,
                              "compare the answers of two deployments to the same requests")
    report.add_argument("-n", "--name", required=True)
    report.add_argument("--live", required=True, help="the deployment whose answers clients got")
    report.add_argument("--shadow", required=True, help="the deployment that got copies")
    report.add_argument("--worst", type=int, help="pairs to show of those that differ most")
    report.add_argument("--absolute-tolerance", type=float, help="of numbers that count as equal")
    report.add_argument("--relative-tolerance", type=float, help="of numbers that count as equal")


def _add_deployment(groups: Groups) -> None:
    deployment = groups.group("online-deployment", "what answers requests of an endpoint")
    create = deployment.command("create", _create_deployment, "create a deployment")
    update = deployment.command("update", _update_deployment,
                                "change a deployment; the old one serves until the new one is up")
    add_file(create, is_required=True)
    add_file(update)
    for command in (create, update):
        command.add_argument("-n", "--name")
        command.add_argument("-e", "--endpoint-name")
        command.add_argument("--skip-script-validation", action="store_true")
        add_no_wait(command)
        _add_local(command)
        _add_switch(command, "--vscode-debug", "listen for a debugger; with --local")
        # Azure's scripts may give them: a process sees the GPUs of its machine by itself.
        for flag in ("--local-enable-gpu", "--package-model", "--web"):
            _add_switch(command, flag, argparse.SUPPRESS)
    create.add_argument("--all-traffic", action="store_true",
                        help="give it all requests once it is up")
    for name, run, help_text in (
        ("show", _show_deployment, "show a deployment"),
        ("delete", _delete_deployment, "delete a deployment that gets no requests"),
        ("get-logs", _get_logs, "show what its instances printed"),
    ):
        command = deployment.command(name, run, help_text)
        command.add_argument("-n", "--name", required=True)
        command.add_argument("-e", "--endpoint-name", required=True)
        _add_local(command)
        if name == "delete":
            add_no_wait(command)
            add_yes(command)
        if name == "get-logs":
            command.add_argument("-l", "--lines", type=int, default=LINES)
            command.add_argument("-c", "--container", default="inference-server",
                                 help="inference-server or storage-initializer")
    listing = deployment.command("list", _list_deployments, "list an endpoint's deployments")
    listing.add_argument("-e", "--endpoint-name", required=True)
    _add_local(listing)


def _add_local(parser: Parser) -> None:
    _add_switch(parser, "--local",
                "on this machine, as plain processes, without a control plane")


def _add_switch(parser: Parser, flag: str, help_text: str) -> None:
    """Add a flag that may be followed by `true` or `false`, as some of Azure's are."""
    parser.add_argument(flag, nargs="?", const=True, default=False, type=_truth, help=help_text,
                        metavar="true|false")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got '{text}'")
    return text.lower() == "true"


def parse_shares(flag: str, words: list[str]) -> dict[str, int]:
    """Return percentages by deployment, as `blue=90 green=10` says them in one word or more.

    Raises:
        InvalidInput: It says something else, or a deployment twice.
    """
    text = " ".join(words)
    found: dict[str, int] = {}
    for word in re.sub(r"\s*=\s*", "=", text).replace(",", " ").split() or [""]:
        share = _SHARE.fullmatch(word)
        if share is None:
            from inferay.engine.resources.wording import shown

            raise InvalidInput(
                f"{flag}: expected NAME=PERCENT, such as \"blue=90 green=10\", got {shown(text)}",
                target=flag,
            )
        if share[1] in found:
            raise InvalidInput(f"{flag}: '{share[1]}' is given twice", target=flag)
        found[share[1]] = int(share[2])
    return found


def _create_endpoint(options: argparse.Namespace) -> Any:
    from inferay.engine.resources import OnlineEndpoint, load

    flags: dict[str, object] = {"auth_mode": options.auth_mode} if options.auth_mode else {}
    if options.file is None and options.name is None:
        raise InvalidInput("online-endpoint create: give --name or --file")
    loaded = load(OnlineEndpoint, options.file, options.set, flags, name=options.name)
    warn(options, loaded.warnings)
    endpoints = connect_online(options).online_endpoints
    return endpoints.create_or_update(loaded.entity, wait=not options.no_wait).to_dict()


def _update_endpoint(options: argparse.Namespace) -> Any:
    from inferay.client.online import RULES, without_rules
    from inferay.engine.resources import OnlineEndpoint, load

    flags: dict[str, object] = {"name": options.name} if options.name else {}
    for field, words in (("traffic", options.traffic), ("mirror_traffic", options.mirror_traffic)):
        if words is not None:
            flags[field] = parse_shares(f"--{field.replace('_', '-')}", words)
    load(OnlineEndpoint, None, (), {"name": "any", **flags})   # refuses before anybody is asked
    endpoints = connect_online(options).online_endpoints
    base = None
    if options.file is None:
        if options.name is None:
            raise InvalidInput("online-endpoint update: give --name or --file")
        base = endpoints.get(options.name)
    loaded = load(OnlineEndpoint, options.file, options.set, flags, base=base)
    warn(options, loaded.warnings)
    entity = loaded.entity
    _check_zeros(options, entity.name, flags)
    if base is None:
        endpoints.get(entity.name)
    else:
        changed = {rule for rule in RULES if getattr(entity, rule) != getattr(base, rule)}
        entity = without_rules(entity, but=changed | flags.keys())
    return endpoints.create_or_update(entity, wait=not options.no_wait).to_dict()


def _check_zeros(options: argparse.Namespace, name: str, flags: Mapping[str, object]) -> None:
    """Check that who shall get nothing is there: a misspelt name would end all traffic.

    The control plane refuses others by itself; a file may name at 0 what is yet to come.

    Raises:
        InvalidInput: There is no such deployment.
    """
    shares = [each for each in flags.values() if isinstance(each, dict)]
    zeros = {one for each in shares for one, share in each.items() if share == 0}
    if not zeros:
        return
    known = [one.name for one in connect_online(options).online_deployments.list(name)]
    for one in sorted(zeros - set(known)):
        raise InvalidInput(
            f"endpoint '{name}' has no deployment '{one}'{nearest(one, known)}", target=one
        )


def _show_endpoint(options: argparse.Namespace) -> Any:
    return connect_online(options).online_endpoints.get(options.name).to_dict()


def _list_endpoints(options: argparse.Namespace) -> Any:
    return [endpoint.to_dict() for endpoint in connect_online(options).online_endpoints.list()]


def _delete_endpoint(options: argparse.Namespace) -> None:
    endpoints = connect_online(options).online_endpoints
    endpoints.get(options.name)
    confirm(options, f"online endpoint '{options.name}' and its deployments")
    endpoints.delete(options.name, wait=not options.no_wait)


def _invoke(options: argparse.Namespace) -> Any:
    body = _body(options.request_file)
    answer = connect_online(options).online_endpoints.invoke(
        options.name, body, deployment_name=options.deployment_name
    )
    if options.output is not None or options.query:
        return answer.value
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.body)   # as it came: it may be an image
    if not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()
    return None


def _body(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"--request-file {path}: {error.strerror}", target="--request-file"
        ) from None


def _get_credentials(options: argparse.Namespace) -> Any:
    return connect_online(options).online_endpoints.get_keys(options.name)


def _regenerate_keys(options: argparse.Namespace) -> None:
    connect_online(options).online_endpoints.regenerate_keys(
        options.name, options.key_type, wait=not options.no_wait
    )


def _shadow_report(options: argparse.Namespace) -> Any:
    from inferay.cli.shadow import render

    settings = {
        "worst": options.worst, "absoluteTolerance": options.absolute_tolerance,
        "relativeTolerance": options.relative_tolerance,
    }
    report = connect(options).online_endpoints.shadow_report(
        options.name, options.live, options.shadow,
        **{key: value for key, value in settings.items() if value is not None},
    )
    if options.output is not None or options.query:
        return report
    print(render(report))
    return None


def _create_deployment(options: argparse.Namespace) -> Any:
    _check_debug(options)
    entity = _declared(options, None)
    deployment = connect_online(options).online_deployments.create(
        entity, all_traffic=options.all_traffic, wait=not options.no_wait,
        skip_script_validation=options.skip_script_validation,
    )
    warn(options, deployment.warnings)
    _tell_debugger(options, deployment)
    return deployment.to_dict()


def _update_deployment(options: argparse.Namespace) -> Any:
    _check_debug(options)
    deployments = connect_online(options).online_deployments
    base = None
    if options.file is None:
        if options.name is None or options.endpoint_name is None:
            raise InvalidInput(
                "online-deployment update: give --name and --endpoint-name, or --file"
            )
        base = deployments.get(options.name, options.endpoint_name)
    entity = _declared(options, base)
    if entity.endpoint_name is not None:
        deployments.get(entity.name, entity.endpoint_name)
    deployment = deployments.create_or_update(
        entity, wait=not options.no_wait, skip_script_validation=options.skip_script_validation
    )
    warn(options, deployment.warnings)
    _tell_debugger(options, deployment)
    return deployment.to_dict()


def _check_debug(options: argparse.Namespace) -> None:
    if not options.vscode_debug:
        return
    if not options.local:
        raise InvalidInput(f"{options.parser.prog}: --vscode-debug needs --local")
    from inferay.local.vscode import check_debugpy

    check_debugpy()


def _tell_debugger(options: argparse.Namespace, deployment: Any) -> None:
    if not options.vscode_debug:
        return
    from inferay.local import LocalClient
    from inferay.local.vscode import offer

    local = connect_online(options)
    assert isinstance(local, LocalClient)
    port = local.online_deployments.debug_port(deployment.name, deployment.endpoint_name)
    for line in offer(Path.cwd(), deployment, port):
        print(line, file=sys.stderr)


def _declared(options: argparse.Namespace, base: Any) -> Any:
    from inferay.engine.resources import OnlineDeployment, load

    loaded = load(
        OnlineDeployment, options.file, options.set, name=options.name, base=base,
        endpoint_name=options.endpoint_name,
        skip_script_validation=options.skip_script_validation,
    )
    warn(options, loaded.warnings)
    return loaded.entity


def _show_deployment(options: argparse.Namespace) -> Any:
    deployments = connect_online(options).online_deployments
    return deployments.get(options.name, options.endpoint_name).to_dict()


def _list_deployments(options: argparse.Namespace) -> Any:
    found = connect_online(options).online_deployments.list(options.endpoint_name)
    return [deployment.to_dict() for deployment in found]


def _delete_deployment(options: argparse.Namespace) -> None:
    deployments = connect_online(options).online_deployments
    deployments.get(options.name, options.endpoint_name)
    confirm(options, f"deployment '{options.name}' of '{options.endpoint_name}'")
    deployments.delete(options.name, options.endpoint_name, wait=not options.no_wait)


def _get_logs(options: argparse.Namespace) -> None:
    text = connect_online(options).online_deployments.get_logs(
        options.name, options.endpoint_name, lines=options.lines, container=options.container
    )
    print(text, end="" if text.endswith("\n") or not text else "\n")

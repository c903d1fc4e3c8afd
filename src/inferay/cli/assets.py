"""`model`, `data`, `environment`, `datastore` and `compute`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inferay.cli.connection import connect
from inferay.cli.output import upload_bar
from inferay.cli.parser import Groups, Parser, add_file, add_no_wait, add_yes, confirm, warn
from inferay.config import BLOB_DATASTORE
from inferay.errors import InvalidInput

#: Flags of `create` besides the common ones, by group: flag names and the field that they set.
_FLAGS: dict[str, list[tuple[tuple[str, ...], str]]] = {
    "model": [(("-p", "--path"), "path"), (("-t", "--type"), "type"),
              (("--description",), "description")],
    "data": [(("-p", "--path"), "path"), (("-t", "--type"), "type"),
             (("--description",), "description")],
    "environment": [(("-i", "--image"), "image"), (("-c", "--conda-file"), "conda_file"),
                    (("-b", "--build-context"), "build.path"),
                    (("-d", "--dockerfile-path"), "build.dockerfile_path"),
                    (("--os-type",), "os_type"), (("--description",), "description")],
    "datastore": [(("-t", "--type"), "type"), (("-p", "--path"), "path"),
                  (("--description",), "description")],
    "compute": [(("-t", "--type"), "type"), (("--size",), "size"),
                (("--min-instances",), "min_instances"), (("--max-instances",), "max_instances"),
                (("-d", "--idle-time-before-scale-down"), "idle_time_before_scale_down"),
                (("--tier",), "tier"), (("-l", "--location"), "location"),
                (("--description",), "description")],
}

_NUMBERS = ("min_instances", "max_instances", "idle_time_before_scale_down")

_HELP = {
    "model": "models", "data": "data assets", "environment": "environments",
    "datastore": "places where data lies", "compute": "pools of instances",
}

#: Groups whose resources have versions.
VERSIONED = ("model", "data", "environment")


def add(groups: Groups) -> None:
    """Add the commands."""
    for name, flags in _FLAGS.items():
        group = groups.group(name, _HELP[name])
        create = group.command("create", _create, f"create a {name}")
        add_file(create)
        create.add_argument("-n", "--name")
        add_no_wait(create)
        for words, field in flags:
            kind = int if field in _NUMBERS else str
            create.add_argument(*words, dest=f"field:{field}", type=kind)
        create.add_argument("--tags", nargs="+", default=[], metavar="NAME=VALUE")
        _named(group.command("show", _show, f"show a {name}"), name)
        delete = group.command("delete", _delete, f"delete a {name}")
        _named(delete, name)
        add_yes(delete)
        listing = group.command("list", _list, f"list {_HELP[name]}")
        if name == "environment":
            build = group.command(
                "build", _build, "build an environment ahead of its use, where the control plane is"
            )
            build.add_argument("-n", "--name", required=True)
            build.add_argument("-v", "--version", help="by default the latest")
            add_no_wait(build)
        if name in VERSIONED:
            create.add_argument("-v", "--version")
            if name == "data":
                create.add_argument("-z", "--datastore-name", default=BLOB_DATASTORE,
                                    help="where local content goes")
            listing.add_argument("-n", "--name", help="all versions of this one")
            shown = listing.add_mutually_exclusive_group()
            shown.add_argument("--archived-only", action="store_const", dest="view",
                               const="ArchivedOnly", default="ActiveOnly")
            shown.add_argument("--include-archived", action="store_const", dest="view", const="All")
            for word in ("archive", "restore"):
                command = group.command(word, _archive, f"{word} a {name}: one version, or all")
                _named(command, name)
        if name == "model":
            download = group.command("download", _download, "copy a model's file or folder here")
            _named(download, name)
            download.add_argument("-p", "--download-path", default=".", metavar="FOLDER",
                                  help="it goes below FOLDER/NAME")


def _named(parser: Parser, group: str) -> None:
    parser.add_argument("-n", "--name", required=True)
    if group in VERSIONED:
        parser.add_argument("-v", "--version")
        parser.add_argument("-l", "--label")


def _service(options: argparse.Namespace) -> Any:
    plural = {"data": "data"}.get(options.group, f"{options.group}s")
    return getattr(connect(options), plural)


def _create(options: argparse.Namespace) -> Any:
    from inferay.engine import resources

    cls = getattr(resources, options.group.capitalize())
    flags = {
        key.removeprefix("field:"): value for key, value in vars(options).items()
        if key.startswith("field:") and value is not None
    }
    flags |= {f'tags."{key}"': value for key, value in map(_pair, options.tags)}
    flags["name"] = options.name
    if options.group in VERSIONED:
        flags["version"] = options.version
    if options.group == "datastore" and "path" in flags:
        flags.setdefault("type", "local")
    loaded = resources.load(cls, options.file, options.set, flags)
    warn(options, loaded.warnings)
    service = _service(options)
    if options.group == "data":
        with upload_bar(is_silent=options.only_show_errors) as progress:
            made = service.create_or_update(
                loaded.entity, datastore=options.datastore_name, progress=progress
            )
    elif options.group in VERSIONED:
        made = service.create_or_update(loaded.entity, wait=not options.no_wait)
    else:
        made = service.create_or_update(loaded.entity)
    return made.to_dict()


def _show(options: argparse.Namespace) -> Any:
    if options.group in VERSIONED:
        return _service(options).get(options.name, options.version, options.label).to_dict()
    return _service(options).get(options.name).to_dict()


def _build(options: argparse.Namespace) -> None:
    connect(options).environments.build(
        options.name, options.version, wait=not options.no_wait
    )


def _list(options: argparse.Namespace) -> Any:
    service = _service(options)
    if options.group in VERSIONED:
        found = service.list(options.name, view=options.view)
    else:
        found = service.list()
    return [one.to_dict() for one in found]


def _archive(options: argparse.Namespace) -> None:
    version = options.version if options.label is None else _version(options)
    getattr(_service(options), options.command)(options.name, version)


def _download(options: argparse.Namespace) -> None:
    version = _version(options)
    files = _service(options).download(options.name, version, options.download_path)
    print(f"{len(files)} files of model {options.name} version {version} are in "
          f"{Path(options.download_path, options.name)}")


def _version(options: argparse.Namespace) -> str:
    """Return the version that is meant, by itself, by its label, or as the latest."""
    if options.version is not None:
        return str(options.version)
    found = _service(options).get(options.name, label=options.label)
    return str(found.version)


def _delete(options: argparse.Namespace) -> None:
    what = f"{options.group} '{options.name}'"
    if options.group not in VERSIONED:
        confirm(options, what)
        _service(options).delete(options.name)
        return
    if options.version is None:
        raise InvalidInput(f"{options.group} delete: give the --version to delete")
    confirm(options, f"{what} version {options.version}")
    _service(options).delete(options.name, options.version)


def _pair(text: str) -> tuple[str, str]:
    key, sep, value = text.partition("=")
    if not sep or not key:
        raise InvalidInput(f"--tags: expected NAME=VALUE, got '{text}'")
    return key, value

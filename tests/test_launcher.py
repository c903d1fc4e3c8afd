"""The launcher, and the Ray head and processes below it, without Ray: small processes stand in."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from inferay import launcher, processes, ray_head
from inferay.config import Workspace
from inferay.control.storage import write_access
from inferay.engine.storage import Access
from inferay.errors import Conflict, InferayError, InvalidInput, Unavailable
from inferay.processes import Process
from inferay.ray_head import RayHead

HEAD = RayHead("127.0.0.1:1", "http://127.0.0.1:2", "", "/token")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "home")
    launcher.prepare(workspace)
    return workspace


@pytest.fixture
def start() -> Iterator[Callable[..., psutil.Process]]:
    """Start processes that live until they are told to end; end them after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def call(code: str = "", **environment: str) -> psutil.Process:
        script = f"import sys, threading\n{code}\nprint(flush=True)\nthreading.Event().wait()"
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True,
            env=environment or None,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()   # it is ready
        return psutil.Process(process.pid)

    yield call
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def remember(workspace: Workspace, name: str, process: psutil.Process) -> None:
    processes.remember(workspace, name, process)


def test_a_workspace_is_private_to_its_user(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    home.mkdir(parents=True, mode=0o755)
    workspace = Workspace(home)
    launcher.prepare(workspace)
    for folder in (home, workspace.secrets, workspace.run, workspace.logs, workspace.tls):
        assert mode(folder) == 0o700, folder
    for path in (workspace.admin_token, workspace.ray_token):
        assert mode(path) == 0o600
        assert len(path.read_text()) >= 43   # 256 bits
    assert workspace.admin_token.read_text() != workspace.ray_token.read_text()


def test_preparing_again_keeps_the_tokens(workspace: Workspace) -> None:
    before = workspace.admin_token.read_text()
    launcher.prepare(workspace)
    assert workspace.admin_token.read_text() == before
    assert [path.name for path in workspace.secrets.iterdir()].count("admin_token") == 1


def test_two_that_start_at_once_agree_on_the_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "home")
    write, written = processes.write_private, []
    both = threading.Barrier(2)

    def write_slowly(path: Path, data: bytes) -> None:
        if path == workspace.admin_token:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.3)   # without the lock both threads would meet here
            written.append(data)
        write(path, data)

    monkeypatch.setattr(launcher, "write_private", write_slowly)
    threads = [threading.Thread(target=launcher.prepare, args=(workspace,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [workspace.admin_token.read_bytes()]


def test_a_process_is_found_by_its_id_and_start_together(start: Callable[..., Any]) -> None:
    process = start()
    known = Process(process.pid, process.create_time())
    assert known.find() == process
    assert Process(process.pid, process.create_time() - 60).find() is None   # a recycled id
    process.kill()
    psutil.wait_procs([process], timeout=10)
    assert known.find() is None


def test_a_dead_process_that_nobody_reaped_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process = psutil.Process(child.pid)
    known = Process(child.pid, process.create_time())
    deadline = threading.Event()
    while process.status() != psutil.STATUS_ZOMBIE:
        deadline.wait(0.01)
    assert known.find() is None
    child.wait()


def test_down_with_nothing_ends_nothing(tmp_path: Path, workspace: Workspace) -> None:
    assert launcher.down(Workspace(tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()
    assert launcher.down(workspace) == []
    assert launcher.down(workspace) == []


def test_down_ends_what_up_started_and_nothing_else(
    workspace: Workspace, start: Callable[..., Any], tmp_path: Path
) -> None:
    temp_dir = tmp_path / "ray-temp"
    temp_dir.mkdir()
    control, head, stranger = start(), start(), start()
    driver = start(RAY_TMPDIR=str(temp_dir))   # has a session of its own
    other = start(RAY_TMPDIR=str(tmp_path / "another"))
    remember(workspace, "control", control)
    remember(workspace, "ray", head)
    processes.write_json(workspace.run / "ray.json", {
        "gcs": "g", "dashboard": "d", "temp_dir": str(temp_dir), "token_path": "",
    })
    assert launcher.down(workspace) == ["control plane", "Ray"]
    for process in (control, head, driver):
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert (stranger.is_running(), other.is_running()) == (True, True)
    assert not temp_dir.exists()
    assert launcher.look(workspace) == launcher.State(None, None, None, None, None)


def test_down_does_not_end_a_stranger_with_a_recycled_id(
    workspace: Workspace, start: Callable[..., Any]
) -> None:
    stranger = start()
    recorded = {"pid": stranger.pid, "started_at": stranger.create_time() - 60}
    processes.write_json(workspace.run / "processes.json", {"control": recorded, "ray": recorded})
    assert launcher.down(workspace) == []
    assert stranger.is_running()


def test_down_ends_a_head_that_the_control_plane_started_while_it_was_told_to_end(
    workspace: Workspace, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    control = start()
    remember(workspace, "control", control)
    processes.write_json(workspace.run / "ray.json", {**vars(HEAD), "temp_dir": "/nowhere/old"})
    late: list[psutil.Process] = []
    end = processes.end

    def end_late(process: psutil.Process) -> None:
        late.append(start(RAY_TMPDIR=str(tmp_path / "new")))
        processes.write_json(
            workspace.run / "ray.json", {**vars(HEAD), "temp_dir": str(tmp_path / "new")}
        )
        end(process)

    monkeypatch.setattr(launcher, "end", end_late)
    launcher.down(workspace)
    assert all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in late)


def test_a_dead_control_plane_is_not_shown_as_running(
    workspace: Workspace, start: Callable[..., Any]
) -> None:
    process = start()
    remember(workspace, "control", process)
    processes.write_json(workspace.run / "control.json", {"url": "https://x"})
    assert launcher.look(workspace).control == process
    process.kill()
    psutil.wait_procs([process], timeout=10)
    state = launcher.look(workspace)
    assert (state.control, state.ray, state.head, state.url) == (None, None, None, "https://x")


def test_rays_tools_get_an_address_and_a_token_by_path() -> None:
    assert ray_head.ray_environment(HEAD) == {
        "RAY_ADDRESS": "127.0.0.1:1", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:2",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/token",
    }
    joined = RayHead("", "http://far:8265", "", "")
    assert ray_head.ray_environment(joined) == {"RAY_API_SERVER_ADDRESS": "http://far:8265"}


def test_a_child_gets_no_settings_of_another_ray_or_workspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_ADDRESS", "INFERAY_TOKEN", "INFERAY_DATABASE_URL", "MINE"):
        monkeypatch.setenv(name, "x")
    found = processes.clean_environment()
    assert {"INFERAY_DATABASE_URL", "MINE"} <= set(found)
    assert not {"RAY_ADDRESS", "INFERAY_TOKEN"} & set(found)


def test_private_addresses_that_up_was_told_to_allow_are_allowed_to_drivers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_ALLOW_PRIVATE_ADDRESSES", "true")
    access = Access.from_environment(processes.clean_environment())   # as the control plane does
    path = write_access(workspace, "job", access)
    assert path is not None
    assert Access.from_dict(json.loads(path.read_bytes())).allow_private_addresses


def test_ports_are_free_distinct_and_out_of_the_way_of_rays_workers() -> None:
    ports = processes.free_ports(7)
    assert len(set(ports)) == 7
    assert all(port in processes.PORTS for port in ports)


@pytest.mark.parametrize(("host", "family"), [
    ("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6),
])
def test_a_taken_port_is_passed_over(host: str, family: socket.AddressFamily) -> None:
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        assert not processes.is_free(host, port)
        assert processes.choose_port(host, port) != port
    assert processes.choose_port(host, port) == port


def test_settings_are_kept_and_a_new_one_wins(workspace: Workspace) -> None:
    processes.keep_settings(workspace, {"host": "0.0.0.0", "port": 1})
    assert processes.keep_settings(workspace, {"host": None, "port": 2}) == {
        "host": "0.0.0.0", "port": 2,
    }
    assert mode(workspace.home / "settings.json") == 0o600


def test_a_taken_port_is_a_conflict_and_is_not_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "ensure_ray", lambda *_: HEAD)
    spawned: list[object] = []
    monkeypatch.setattr(launcher, "spawn", lambda *words: spawned.append(words))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {port} on 127.0.0.1 is taken") as caught:
            launcher.up(workspace, port=port)
    assert caught.value.code == "PortTaken"
    assert spawned == []
    assert processes.read_json(workspace.home / "settings.json") == {}
    assert launcher.look(workspace).control is None


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(launcher, "ensure_ray", lambda *_: HEAD)
    with pytest.raises(InvalidInput, match=f"cannot listen on port [0-9]+ of {host}: [A-Z]"):
        launcher.up(workspace, host=host)
    assert processes.read_json(workspace.home / "settings.json") == {}


def test_a_control_plane_that_ends_at_once_is_said_with_its_last_line(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "ensure_ray", lambda *_: HEAD)

    def spawn(command: list[str], log: Path, environment: dict[str, str]) -> psutil.Process:
        log.write_text("first\nthe disk is on fire\n")
        child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
        process = psutil.Process(child.pid)
        process.create_time()
        child.communicate()
        return process

    monkeypatch.setattr(launcher, "spawn", spawn)
    with pytest.raises(Unavailable, match="the disk is on fire"):
        launcher.up(workspace)


def test_another_cluster_is_joined_and_never_ended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    head = ray_head.ensure_ray(workspace, "http://far:8265/")
    assert head == RayHead("", "http://far:8265", "", "")
    assert launcher.look(workspace).head == head
    assert ray_head.revive_ray(workspace) is False
    assert launcher.down(workspace) == []


def test_joining_is_refused_while_a_head_of_ones_own_runs(
    workspace: Workspace, start: Callable[..., Any]
) -> None:
    remember(workspace, "ray", start())
    processes.write_json(workspace.run / "ray.json", {**vars(HEAD), "temp_dir": "/nowhere/x"})
    with pytest.raises(Conflict, match="inferay down"):
        ray_head.ensure_ray(workspace, "http://far:8265")
    assert processes.read_json(workspace.run / "ray.json")["temp_dir"] == "/nowhere/x"


def test_a_dead_head_is_revived_but_not_while_up_or_down_work(
    workspace: Workspace, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Workspace] = []
    monkeypatch.setattr(ray_head, "ensure_ray", calls.append)
    assert ray_head.revive_ray(workspace) is False   # there was none
    processes.write_json(workspace.run / "ray.json", {**vars(HEAD), "temp_dir": "/nowhere/x"})
    with processes.lock(workspace):
        assert ray_head.revive_ray(workspace) is False
    assert ray_head.revive_ray(workspace) is True
    process = start()
    remember(workspace, "ray", process)
    assert ray_head.revive_ray(workspace) is False   # it runs
    assert calls == [workspace]


def test_a_head_that_does_not_start_leaves_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(ray_head, "TEMP_CHARS_MAX", 1000)
    monkeypatch.setattr(ray_head, "RAY_START_S", 0.0)
    spawned: list[subprocess.Popen[bytes]] = []

    def spawn(command: list[str], log: Path, environment: dict[str, str]) -> psutil.Process:
        known = json.loads((workspace.run / "ray.json").read_text())
        assert known["temp_dir"] == environment["RAY_TMPDIR"]   # known before it is started
        assert str(workspace.ray_token.read_text()) not in " ".join(command)
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(60)"], env=environment
        )
        spawned.append(child)
        return psutil.Process(child.pid)

    monkeypatch.setattr(ray_head, "spawn", spawn)
    with pytest.raises(Unavailable, match=r"ray\.log"):
        ray_head.ensure_ray(workspace)
    assert len(spawned) == ray_head.RAY_START_TRIES
    for child in spawned:
        child.wait(10)   # it was ended, or this would wait for a minute
    (parent,) = tmp_path.glob("inferay-*")
    assert list(parent.iterdir()) == []


def test_a_damaged_file_is_named(workspace: Workspace) -> None:
    (workspace.run / "processes.json").write_text("{")
    with pytest.raises(InferayError, match=r"processes\.json is damaged"):
        launcher.look(workspace)


def test_rays_sockets_have_room_even_where_the_temp_dir_is_long(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/var/folders/zz/zyxvpxvq6csfxvn_n0000000/T")
    folder = ray_head._ray_temp_dir(workspace)
    try:
        assert str(folder).startswith("/tmp/")
        session = "session_2026-11-22_17-50-38_105613_1234567/sockets/dash_MetricsHead"
        assert len(f"{folder}/{session}") <= 107
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        shutil.rmtree(folder)

"""Searches beyond one process: two at once, killed ones, and the engines that run Hydra's jobs."""

import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from conftest import SMALL_HOG, read_rows
from hydra.core.config_store import ConfigStore

from spectro.cli import main as cli
from spectro.cli.explain import explain
from spectro.config.groups import register
from spectro.paths import CONF

TRAIN = CONF.parent / "train.py"
# So few trials that all points are drawn by chance: then no order of ending changes them.
N_TRIALS = 6
slow = pytest.mark.slow


def arguments(data, *more):
    """A small search with relative outputs, as a person would type it."""
    fixed = ["sweeper=hog_svm", "cascade_stage=flat", "study=s", "seed=3", f"n_trials={N_TRIALS}", "tracking.uri=null"]
    return ["--multirun", *fixed, *SMALL_HOG, f"data.demo_dir={data}", "data.scale=0.1", *more]


def start(cwd, *overrides, **environment):
    cwd.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, TRAIN, *overrides],
        cwd=cwd,
        # Where spectro is not installed, new processes must find it as this one does.
        env={**os.environ, "PYTHONPATH": str(CONF.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process, code=0):
    out, err = process.communicate(timeout=300)
    assert code is None or process.returncode == code, out + err
    return out


def sweep(cwd, *overrides, **environment):
    return ended(start(cwd, *overrides, **environment))


def rows(cwd):
    return read_rows(cwd / "outputs" / "sweeps" / "s" / "trials.csv")


def table(cwd):
    """The results of a search by their parameters: without trial numbers, seconds and killed trials."""
    results = [{k: v for k, v in row.items() if k not in ("trial", "seconds", "reason")} for row in rows(cwd)]
    return sorted((row for row in results if row["state"] != "FAIL"), key=lambda row: row["svm.C"])


def printed_trials(out):
    """The trials that a process has printed a line for."""
    return [int(line.split()[0]) for line in out.splitlines() if re.match(r" *\d+ .*, \d+:\d\d left", line)]


def final_runs(cwd):
    return len(list((cwd / "outputs" / "sweeps" / "s").glob("final_*/metrics.json")))


def owners(cwd, state):
    """The processes of the trials of a state."""
    query = (
        "select a.value_json from trials t join trial_user_attributes a using (trial_id) where a.key = 'owner' "
        "and t.state = ?"
    )
    try:
        with closing(sqlite3.connect(cwd / "outputs" / "studies.db")) as connection:
            return [json.loads(text) for (text,) in connection.execute(query, (state,))]
    except sqlite3.Error:  # not there yet
        return []


def in_mlflow(uri):
    """How many sweeps, their trials and their final runs MLflow has."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("field").experiment_id])
    parents = [run.info.run_id for run in runs if run.data.tags.get("sweep") == "true"]
    assert all(run.info.status == "FINISHED" for run in runs)
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in parents]
    assert len(below) + len(parents) == len(runs)
    final = sum(run.data.tags.get("final") == "true" for run in below)
    return len(parents), len(below) - final, final


@pytest.fixture(scope="module")
def alone(demo_root, tmp_path_factory):
    """What one process finds that nobody disturbs."""
    cwd = tmp_path_factory.mktemp("alone")
    sweep(cwd, *arguments(demo_root))
    assert len(rows(cwd)) == N_TRIALS
    return table(cwd)


def plugin(name, extra):
    pytest.importorskip(f"hydra_plugins.{name}", reason=f"needs pip install 'spectro[{extra}]'")


# --- Without an engine ---


@slow
def test_killed_at_any_moment_it_ends_as_if_undisturbed(demo_root, tmp_path):
    """Each point after the third depends on the results before: a lost or repeated one would change the rest."""
    n_trials = 12
    words = arguments(demo_root, f"n_trials={n_trials}", "hydra.sweeper.sampler.n_startup_trials=3")
    sweep(tmp_path / "whole", *words)
    random_pause, cwd = random.Random(0), tmp_path / "parts"
    kills = 0
    for n_complete in (0, 1, 3, 3, 6, 9, n_trials):
        process = start(cwd, *words)
        while process.poll() is None and len(owners(cwd, "COMPLETE")) < n_complete:
            time.sleep(0.01)
        time.sleep(random_pause.uniform(0.0, 0.3))
        kills += process.poll() is None
        process.kill()
        ended(process, None)
    out = sweep(cwd, *words)
    assert kills >= 4
    assert f"of {n_trials} trials" in out
    assert table(cwd) == table(tmp_path / "whole")
    killed = [row for row in rows(cwd) if row["state"] == "FAIL"]
    assert all("killed" in row["reason"] for row in killed)
    assert len(rows(cwd)) == n_trials + len(killed)
    assert final_runs(cwd) == 1
    # Started once more it finds everything done.
    assert printed_trials(sweep(cwd, *words)) == []


@slow
def test_two_at_once_share_a_study(demo_root, tmp_path, alone):
    words = arguments(demo_root, "tracking.uri=sqlite:///m.db")
    both = [printed_trials(ended(process)) for process in [start(tmp_path, *words), start(tmp_path, *words)]]
    assert not set(both[0]) & set(both[1])
    assert len(both[0]) + len(both[1]) == N_TRIALS
    assert table(tmp_path) == alone
    assert in_mlflow(f"sqlite:///{tmp_path}/m.db") == (1, N_TRIALS, 1)
    assert not (tmp_path / "mlruns").exists()


@slow
def test_one_of_two_is_killed(demo_root, tmp_path):
    """The other makes up for it, without a new start. Trials are long enough for both to get some."""
    words, cwd = arguments(demo_root, "validation.repeats=20"), tmp_path / "two"
    sweep(tmp_path / "alone", *words)
    first, second = (start(cwd, *words) for _ in range(2))
    while first.pid not in [owner["pid"] for state in ("RUNNING", "COMPLETE") for owner in owners(cwd, state)]:
        assert first.poll() is None
        time.sleep(0.002)
    first.kill()
    ended(first, None)
    ended(second)
    assert table(cwd) == table(tmp_path / "alone")
    assert final_runs(cwd) == 1


# --- Launchers ---


@slow
@pytest.mark.parametrize(
    ("launcher", "module", "extra"),
    [("joblib", "hydra_joblib_launcher", "joblib"), ("submitit_local", "hydra_submitit_launcher", "slurm")],
)
def test_workers_find_what_one_process_finds(demo_root, tmp_path, alone, launcher, module, extra):
    """submitit_local takes the path of Slurm's jobs without a Slurm."""
    plugin(module, extra)
    words = arguments(demo_root, f"hydra/launcher={launcher}", "n_jobs=2", "tracking.uri=sqlite:///${outputs}/m.db")
    out = sweep(tmp_path, *words)
    assert sorted(printed_trials(out)) == list(range(N_TRIALS))
    # One line for each trial: launchers would print each with all its overrides.
    assert "launching" not in out
    assert "+trial" not in out
    assert table(tmp_path) == alone
    assert in_mlflow(f"sqlite:///{tmp_path}/outputs/m.db") == (1, N_TRIALS, 1)
    sweeps = tmp_path / "outputs" / "sweeps"
    assert [path.name for path in sweeps.iterdir()] == ["s"]
    assert sorted(path.name for path in (sweeps / "s" / "0" / ".hydra").iterdir()) == ["config.yaml", "overrides.yaml"]
    # The files of submitit's jobs may hold a password.
    assert not list((tmp_path / "outputs" / "mlartifacts").rglob(".submitit"))
    assert printed_trials(sweep(tmp_path, *words)) == []


@slow
@pytest.mark.parametrize("ending", ["kill", "interrupt"])
def test_workers_that_are_stopped(demo_root, tmp_path, alone, ending):
    """A worker dies, and joblib ends all of them; or Ctrl-C, which a terminal sends to all."""
    plugin("hydra_joblib_launcher", "joblib")
    words = arguments(demo_root, "hydra/launcher=joblib", "n_jobs=2")
    process = start(tmp_path, *words)
    while not (workers := [owner["pid"] for owner in owners(tmp_path, "RUNNING") if owner["pid"] != process.pid]):
        assert process.poll() is None
        time.sleep(0.01)
    if ending == "kill":
        os.kill(workers[0], signal.SIGKILL)
        assert "it is drawn again" in ended(process)
        failed = [row for row in rows(tmp_path) if row["state"] == "FAIL"]
        assert 1 <= len(failed) <= 2
        assert all("TerminatedWorker" in row["reason"] for row in failed)
    else:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "interrupted"
        assert "Traceback" not in out + err
        sweep(tmp_path, *words)
    assert table(tmp_path) == alone


# --- Ray ---


@slow
def test_ray(demo_root, tmp_path, alone, monkeypatch):
    """A cluster of a head without cores and two workers with one core each, started elsewhere than the search."""
    plugin("hydra_ray_launcher", "ray")
    monkeypatch.setenv("RAY_AUTH_TOKEN", os.urandom(32).hex())
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        # The address in the configuration is `auto`: the cluster that the environment names.
        words = arguments(demo_root, "hydra/launcher=ray_cluster", "n_jobs=2", "tracking.uri=sqlite:///${outputs}/m.db")
        out = sweep(tmp_path, *words, RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()
    assert sorted(printed_trials(out)) == list(range(N_TRIALS))
    assert table(tmp_path) == alone
    assert in_mlflow(f"sqlite:///{tmp_path}/outputs/m.db") == (1, N_TRIALS, 1)
    assert len({owner["pid"] for owner in owners(tmp_path, "COMPLETE")}) == 2


# --- PostgreSQL ---


def _program(name):
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[::-1]), None)
    return found or pytest.skip(f"needs PostgreSQL's {name}: apt-get install postgresql")


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def postgres(monkeypatch):
    """A server of its own with a password that no address holds: the address of its databases without their names."""
    psycopg = pytest.importorskip("psycopg", reason="needs pip install 'spectro[postgres]'")
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    port, password = _free_port(), os.urandom(16).hex()
    monkeypatch.setenv("PGPASSWORD", password)
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # where an unprivileged user can reach it
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "check": True}
    (folder / "password").write_text(password, encoding="utf-8")
    if os.getuid() == 0:  # the server refuses to run as root
        user = pwd.getpwnam("postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody")
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        made = [initdb, "-D", "data", "-U", "spectro", "-A", "scram-sha-256", "--pwfile=password", "--no-sync"]
        subprocess.run(made, **options)
        flags = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run([pg_ctl, "-D", "data", "-w", "-l", "log", "-o", flags, "start"], **options)
        ending.callback(subprocess.run, [pg_ctl, "-D", "data", "-m", "immediate", "stop"], **options)
        with psycopg.connect(f"postgresql://spectro@127.0.0.1:{port}/postgres", autocommit=True) as connection:
            for name in ("studies", "mlflow"):
                connection.execute(f"create database {name}")
        yield f"postgresql+psycopg://spectro@127.0.0.1:{port}"


@slow
def test_postgresql(demo_root, tmp_path, alone, postgres):
    """Two processes at once, study and MLflow's server on one PostgreSQL."""
    port = _free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"{postgres}/mlflow", "--artifacts-destination", str(tmp_path / "files")),
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port, server)
        words = arguments(demo_root, f"storage={postgres}/studies", f"tracking.uri=http://127.0.0.1:{port}")
        both = [printed_trials(ended(process)) for process in [start(tmp_path, *words), start(tmp_path, *words)]]
        assert sorted([*both[0], *both[1]])[: N_TRIALS - 1] == list(range(N_TRIALS - 1))
        assert len(both[0]) + len(both[1]) == N_TRIALS
        assert table(tmp_path) == alone
        assert in_mlflow(f"http://127.0.0.1:{port}") == (1, N_TRIALS, 1)
        assert list((tmp_path / "files").rglob("trials.csv"))
        assert not (tmp_path / "mlruns").exists()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@slow
def test_mlflow_in_postgresql_without_a_server(demo_root, tmp_path, postgres):
    """MLflow would put files where one stands."""
    sweep(tmp_path, *arguments(demo_root, f"tracking.uri={postgres}/mlflow"))
    assert in_mlflow(f"{postgres}/mlflow") == (1, N_TRIALS, 1)
    assert list((tmp_path / "outputs" / "mlartifacts").rglob("trials.csv"))
    assert not (tmp_path / "mlruns").exists()


def _wait_for(port, server):
    for _ in range(600):
        assert server.poll() is None
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the server did not come")


# --- Messages ---


@pytest.mark.parametrize(
    ("launcher", "node", "extra"),
    [("joblib", "joblib", "joblib"), ("ray_cluster", "ray", "ray"), ("slurm", "submitit_slurm", "slurm")],
)
def test_a_missing_extra_is_named(launcher, node, extra, monkeypatch):
    register()
    cli.composed([])  # makes Hydra look for its plugins
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{node}.yaml", raising=False)
    overrides = [f"hydra/launcher={launcher}"]
    with pytest.raises(Exception, match=node) as caught:
        cli.composed(overrides)
    message = str(explain(caught.value, overrides))
    assert node in message
    assert f"pip install 'spectro[{extra}]'" in message

"""The number of threads: affinity, quotas of cgroups in either version, the environment variable, the call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import threadpoolctl

import gpulstm as gl
from gpulstm.arrays import threads


def groups(folder: Path, membership: str, files: dict[str, str]) -> tuple[str, str]:
    """A file that names groups and a tree of them, as `cpu_quota` takes both."""
    (folder / "cgroup").write_text(membership, encoding="utf-8")
    for name, text in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(folder / "cgroup"), str(folder / "mount")


V1 = "12:memory:/m\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/s\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),  # the group above
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "300000 100000\n"}, 0.5),
        ("0::/host/path\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a container that sees its own group as the root
        ("0::/../x\n", {}, None),
        (
            V1,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "40000\n", "cpu/cpu.cfs_period_us": "20000\n"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (V1 + "0::/x\n", {"unified/x/cpu.max": "70000 100000"}, 0.7),
        ("12:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        ("nonsense\n0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
    ],
)
def test_quotas_of_cgroups(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    assert threads.cpu_quota(*groups(tmp_path, membership, files)) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert threads.cpu_quota(str(tmp_path / "none"), str(tmp_path)) is None
    (tmp_path / "cgroup").mkdir()  # a folder cannot be read
    assert threads.cpu_quota(str(tmp_path / "cgroup"), str(tmp_path)) is None


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight CPUs, no variable, nothing chosen."""
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "_chosen", None)
    return monkeypatch


@pytest.mark.parametrize(("quota", "count"), [(None, 8), (0.2, 1), (1.0, 1), (2.1, 3), (64.0, 8)])
def test_the_default_is_what_the_process_may_use(fresh: pytest.MonkeyPatch, quota: float | None, count: int) -> None:
    fresh.setattr(threads, "cpu_quota", lambda: quota)
    assert gl.get_num_threads() == count


def test_the_variable_and_the_call_go_before_a_quota(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(threads, "cpu_quota", lambda: 1.0)
    fresh.setenv(threads.VARIABLE, "5")
    assert gl.get_num_threads() == 5
    gl.set_num_threads(3)
    assert gl.get_num_threads() == 3
    gl.set_num_threads(None)
    fresh.delenv(threads.VARIABLE)
    assert gl.get_num_threads() == 1


def test_a_system_without_affinity_counts_its_processors(fresh: pytest.MonkeyPatch) -> None:
    fresh.delattr(os, "sched_getaffinity")
    fresh.setattr(os, "cpu_count", lambda: 6)
    fresh.setattr(threads, "cpu_quota", lambda: None)
    assert gl.get_num_threads() == 6


def test_small_products_hold_blas_to_one_thread() -> None:
    controller = threadpoolctl.ThreadpoolController()

    def counts() -> set[int]:
        return {each["num_threads"] for each in controller.info() if each["user_api"] == "blas"}

    before = counts()
    with threads.one_blas_thread(1e6):
        assert counts() == {1}
    assert counts() == before
    with threads.one_blas_thread(1e12):
        assert counts() == before

"""The memory limit of a container, as the kernel shows it."""

import pytest

from stream.cgroup import memory_kills, memory_limit

MIB = 2**20
V2 = "0::/kubepods/pod1/c1\n"
V1 = "9:name=systemd:/x\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/x\n"


def kernel(root, groups, files):
    """A root folder whose kernel says ``groups`` in ``/proc/self/cgroup`` and has ``files`` below ``/sys/fs/cgroup``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": 300 * MIB}, 300),
        (V2, {"memory.max": "max", "kubepods/pod1/memory.max": 900 * MIB, "kubepods/pod1/c1/memory.max": 700 * MIB}, 700),
        (V2, {"kubepods/pod1/memory.max": 500 * MIB, "kubepods/pod1/c1/memory.max": "max"}, 500),
        (V1, {"memory/memory.limit_in_bytes": 400 * MIB}, 400),
        (V1, {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/docker/abc/memory.limit_in_bytes": 200 * MIB}, 200),
        ("0::/user/run\n", {"unified/user/run/memory.max": 100 * MIB}, 100),
        (V1, {"memory/memory.limit_in_bytes": 2**63 - 4096}, None),
        (V2, {"memory.max": "max"}, None),
        (V2, {"memory.max": "nonsense"}, None),
        ("0::/../../other\n", {"memory.max": 300 * MIB}, 300),
        ("no groups", {"memory.max": 300 * MIB}, None),
    ],
)
def test_the_tightest_limit_that_applies_is_found(tmp_path, groups, files, limit):
    assert memory_limit(kernel(tmp_path, groups, files)) == (None if limit is None else limit * MIB)


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert memory_limit(tmp_path) is None
    assert memory_kills(tmp_path) == 0


@pytest.mark.parametrize(
    ("groups", "name", "content"),
    [
        (V2, "kubepods/pod1/c1/memory.events", "low 0\nhigh 0\nmax 8\noom 4\noom_kill 3\noom_group_kill 0"),
        (V1, "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3"),
    ],
)
def test_processes_that_the_kernel_killed_are_counted(tmp_path, groups, name, content):
    assert memory_kills(kernel(tmp_path, groups, {name: content})) == 3


def test_the_kernel_of_this_machine_is_understood():
    assert memory_kills() >= 0
    limit = memory_limit()
    assert limit is None or limit > MIB

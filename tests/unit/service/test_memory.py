from pathlib import Path

from service.cluster.memory import oom_kills


def test_the_kernels_count_is_read_where_there_is_one(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    assert oom_kills(vmstat) is None
    vmstat.write_text("nr_free_pages 7\noom_kill_other 9\n")
    assert oom_kills(vmstat) is None
    vmstat.write_text("nr_free_pages 7\noom_kill 3\n")
    assert oom_kills(vmstat) == 3

"""What the machine has: a container's limits count, and a system that says nothing is unknown, not an error."""

from __future__ import annotations

import pytest

from harness.core import machine


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Write the limits of a container."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text + "\n")

    return write


def test_memory_is_at_most_what_a_container_allows(container):
    container(memory_max="1000", memory_current="400")
    assert machine.memory() == (600, 1000)


def test_a_container_without_a_limit_has_the_memory_of_the_machine(container):
    whole = machine.memory()
    container(memory_max="max", memory_current="400")
    assert machine.memory()[1] == whole[1]


def test_a_system_that_says_nothing_is_unknown(container, monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: "")
    assert machine.memory() == (None, None)
    assert machine.bfloat16_units() == []
    assert machine.cpu_name()


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1.5), ("max 100000", None), ("", None)])
def test_the_time_of_a_container_is_in_cores(container, text, cores):
    container(cpu_max=text)
    assert machine.cpu_quota() == cores


def test_the_instructions_for_bfloat16_are_named(monkeypatch):
    text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz: best\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_int8\n"
    monkeypatch.setattr(machine, "_read", lambda path: text)
    assert machine.cpu_name() == "Some CPU @ 2 GHz: best"
    assert machine.bfloat16_units() == ["amx_bf16", "avx512_bf16"]
